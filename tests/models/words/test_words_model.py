"""Models from words: shapes are named by their words, others are told unknown, and the model is one like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fewframes
from fewframes.errors import ConfigError, WeightsError
from fewframes.inference.timeline import sweep
from fewframes.models.files.model_file import read_header, read_model_file
from fewframes.models.files.names import packaged_path
from fewframes.models.rejection.phrases import PhraseJudge
from fewframes.models.words.files import encoder_of, kept_words_model, words_model
from fewframes.models.words.image_text import open_image_text
from fewframes.results import UNKNOWN
from helpers.words import OTHERS, RED_AND_BLUE, write_parts, write_video

pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def predictor(words_file: Path) -> fewframes.Predictor:
    return fewframes.load(words_file, device="cpu", dtype="float32")


@pytest.mark.parametrize("name", ["red circle", "blue square"])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_the_words_say_is_found(predictor: fewframes.Predictor, name: str, seed: int, tmp_path: Path) -> None:
    found = predictor.predict(write_video(tmp_path / "a.mp4", name, seed=seed))
    assert found.label == f"a {name}"
    assert found.scores.max() > 0.9
    assert found.familiarity is not None
    assert found.familiarity.known > 0.5


@pytest.mark.parametrize(
    ("name", "reason"),
    [("stripes", "stripes"), ("an empty picture", "an empty picture"), ("yellow cross", ""), ("green cross", "")],
)
def test_what_no_label_says_is_unknown(predictor: fewframes.Predictor, name: str, reason: str, tmp_path: Path) -> None:
    found = predictor.predict(write_video(tmp_path / "a.mp4", name))
    assert found.label == UNKNOWN
    assert found.familiarity is not None
    assert reason in found.familiarity.reason
    assert found.familiarity.reason.endswith("than like any of its labels")


def test_unknown_can_be_left_out_but_no_fraction_be_kept(words_file: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", "stripes")
    assert fewframes.load(words_file, unknown="off").predict(video).label in ("a red circle", "a blue square")
    with pytest.raises(ConfigError, match="made from words"):
        fewframes.load(words_file, unknown=0.9)


def test_it_is_blind_to_the_order_of_frames(predictor: fewframes.Predictor) -> None:
    draw = np.random.default_rng(0).integers(0, 256, (1, 6, 3, 32, 32), dtype=np.uint8)
    embeddings_1TD = predictor.runtime.encode_clips(draw)
    forwards = predictor.runtime.encode_windows(embeddings_1TD).logits
    backwards = predictor.runtime.encode_windows(embeddings_1TD[:, ::-1].copy()).logits
    np.testing.assert_allclose(forwards, backwards, atol=1e-4)


def test_a_timeline_finds_what_stands_still_in_single_frames(predictor: fewframes.Predictor, tmp_path: Path) -> None:
    parts = ["an empty picture", "red circle", "stripes", "blue square", "green cross"]
    film = write_parts(tmp_path / "film.mp4", parts, seconds=4)
    found = sweep(predictor, film, fewframes.TimelineConfig(window_s=2.0))
    assert {span.label for span in found.spans if span.end_s <= 10} == {"a red circle"}
    assert {span.label for span in found.spans if span.start_s >= 10} == {"a blue square"}
    for label, start_s, end_s in (("a red circle", 4, 8), ("a blue square", 12, 16)):
        own = [span for span in found.spans if span.label == label]
        assert min(span.start_s for span in own) == pytest.approx(start_s, abs=1.1)
        assert max(span.end_s for span in own) == pytest.approx(end_s, abs=1.1)  # windows are 2 s long


def test_two_of_them_share_one_pass(words_file: Path, image_text: Path, tmp_path: Path) -> None:
    other = words_model("a green cross; a yellow circle", tmp_path / "other.safetensors", encoder=str(image_text))
    heads = fewframes.load_heads([words_file, other], device="cpu", dtype="float32")
    found = heads.predict(write_video(tmp_path / "a.mp4", "green cross"))
    assert [prediction.top(1)[0].label for prediction in found][1] == "a green cross"
    keys = {fewframes.load(path, dtype="float32").runtime.encoder_key() for path in (words_file, other)}
    assert len(keys) == 1  # embeddings are cached once for all labels


def test_the_file_tells_its_words_and_its_licence(words_file: Path) -> None:
    file, header = read_model_file(words_file), read_header(words_file)
    assert header is not None
    assert header["format"] == 4
    assert file.provenance["words"]["labels"] == {"a red circle": ["a red circle"], "a blue square": ["a blue square"]}
    assert file.licences["frame encoder"].startswith("not known here")
    assert isinstance(file.rejection, PhraseJudge)
    assert file.rejection.names == tuple(OTHERS.split("; "))


def test_phrases_that_say_the_same_as_a_label_are_left_out(image_text: Path, tmp_path: Path) -> None:
    path = words_model(
        "a red circle", tmp_path / "m.safetensors", encoder=str(image_text), background="a red circle; stripes"
    )
    judge = read_model_file(path).rejection
    assert isinstance(judge, PhraseJudge)
    assert judge.names == ("stripes",)
    with pytest.raises(ConfigError, match="each of 1 phrases says the same as a label"):
        words_model("a red circle", path, encoder=str(image_text), background="a red circle")


def test_labels_are_kept_in_the_cache_folder_as_long_as_they_are_used(
    image_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path))
    first = kept_words_model(RED_AND_BLUE, str(image_text))
    written = first.read_bytes()
    assert kept_words_model(" a red circle;a blue square ", str(image_text)) == first
    assert first.read_bytes() == written
    for number in range(9):
        (tmp_path / "words" / f"{number}.safetensors").touch()
    (tmp_path / "words" / "2.safetensors").write_bytes(b"")
    kept_words_model(RED_AND_BLUE, str(image_text))
    assert first.is_file()
    assert len(list((tmp_path / "words").iterdir())) == 8


def test_the_words_of_a_model_are_those_of_its_own_encoder(words_file: Path, image_text: Path, tmp_path: Path) -> None:
    file = read_model_file(words_file)
    theirs = open_image_text(str(image_text)).embed_texts(["stripes"])
    np.testing.assert_array_equal(encoder_of(file, "m").embed_texts(["stripes"]), theirs)
    with pytest.raises(ConfigError, match=r"lite0-16 knows no words: its frame encoder is 'lite0'"):
        encoder_of(read_model_file(packaged_path("lite0-16")), "lite0-16")
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in image_text.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    np.testing.assert_array_equal(encoder_of(file, "m", str(moved)).embed_texts(["stripes"]), theirs)
    import open_clip
    import torch
    from safetensors.torch import save_file

    model = open_clip.create_model(f"local-dir:{moved}")
    with torch.no_grad():
        model.visual.conv1.weight[0, 0, 0, 0] += 0.5
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, moved / "open_clip_model.safetensors"
    )
    with pytest.raises(WeightsError, match="its image half has other weights than the frame encoder of m"):
        encoder_of(file, "m", str(moved))
