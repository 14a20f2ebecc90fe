"""An index that is asked in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewframes.errors import ConfigError, WeightsError
from fewframes.inference.predictor import load
from fewframes.models.words.files import words_model
from fewframes.search.index import Index
from helpers.words import write_parts, write_video

pytest.importorskip("open_clip")
NAMES = ("red circle", "blue square", "green cross", "yellow circle", "stripes")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [
        *(write_video(folder / f"{name}.mp4", name) for name in NAMES),
        write_parts(folder / "film.mp4", ["an empty picture", "green square", "stripes"], seconds=4),
    ]


@pytest.fixture(scope="module")
def index(words_file: Path, films: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Index:
    predictor = load(words_file, device="cpu", dtype="float32")
    index = Index.open(tmp_path_factory.mktemp("index") / "moments", predictor, window_s=2.0, hop_s=1.0)
    assert not index.add(films).failures
    return index


def test_what_the_words_say_comes_first(index: Index) -> None:
    """None of these is a label of the model but the first."""
    for text, name in (
        ("a red circle", "red circle"),
        ("a green cross", "green cross"),
        ("yellow circle|a yellow circle", "yellow circle"),
    ):
        first = index.search(index.text(text), num=1)[0]
        assert Path(first.source).stem == name
    found = index.search(index.text("a green square"), num=1)[0]
    assert Path(found.source).name == "film.mp4"
    assert 3.5 <= found.start_s <= 6.5
    striped = index.search(index.text("stripes"), num=2, distinct=True)
    assert {Path(hit.source).stem for hit in striped} == {"stripes", "film"}


def test_what_words_found_teaches_a_label(index: Index) -> None:
    found = index.search(index.text("stripes"), num=2, distinct=True)
    index.teach("striped", [found[0].id, found[1].id])
    assert index.search("striped", num=1)[0].similarity > 0.5


def test_an_index_without_words_says_what_to_do(tiny_model: Path, films: list[Path], tmp_path: Path) -> None:
    plain = Index.open(tmp_path / "plain", load(tiny_model, device="cpu", dtype="float32"), window_s=2.0)
    with pytest.raises(
        ConfigError, match=r"whose frame encoder \(vit\) knows no words; make an index with words beside its vectors"
    ):
        plain.text("a red circle")


def test_the_model_must_be_that_of_the_index(index: Index, image_text: Path, tmp_path: Path) -> None:
    other = words_model("a green cross", tmp_path / "other.safetensors", encoder=str(image_text))
    with pytest.raises(WeightsError, match="has other weights; name that model"):
        index.text("a red circle", model=str(other))
    with pytest.raises(ConfigError, match="no words; say what to find"):
        index.text("  ")


def test_vectors_of_both_kinds_cannot_be_compared_with_words(words_file: Path, tmp_path: Path) -> None:
    both = Index.open(tmp_path / "both", load(words_file, device="cpu"), window_s=2.0, embedding="both")
    with pytest.raises(ConfigError, match="make an index with --embedding frames"):
        both.text("a red circle")
