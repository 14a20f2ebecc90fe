"""Teaching a model at once: new labels, corrections, what is written and refused, and what becomes of the old labels."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewframes
from fewframes.core.cache import EmbeddingCache
from fewframes.core.files import held
from fewframes.data.config import DataConfig
from fewframes.data.dataset import VideoSet, read_data
from fewframes.data.samples import Sample
from fewframes.errors import ConfigError, DataError, FewframesError, MissingVideo, WeightsError
from fewframes.inference.predictor import load
from fewframes.models.files.model_file import read_model_file
from fewframes.models.rejection.rejection import Rejection
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import RunConfig
from fewframes.training.solved.run import SolveOptions, train_solved
from fewframes.training.teaching import features, solving
from fewframes.training.teaching import teach as teaching
from fewframes.training.teaching.changes import TeachChanges
from fewframes.training.teaching.state import read_state
from fewframes.training.teaching.teach import TeachOptions, teach
from helpers.numbered import write_fading

Content = dict[str, bytes]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> VideoSet:
    """Eighteen clips of three labels, in groups of three; the third label is steady."""
    folder = tmp_path_factory.mktemp("three")
    samples = []
    for number in range(6):
        for label, turned in (("redden", False), ("turn blue", True)):
            path = folder / f"{label}{number}.mp4"
            write_fading(path, 16 + 3 * number, turned=turned)
            samples.append(Sample(path=str(path), labels=(label,), group=f"group {number}"))
        path = folder / f"steady{number}.mp4"
        write_fading(path, 2 + number, turned=False)
        samples.append(Sample(path=str(path), labels=("steady",), group=f"group {number}"))
    return VideoSet(tuple(samples), "three")


@pytest.fixture
def options(cache: EmbeddingCache, tiny_model: Path) -> TeachOptions:
    return TeachOptions(cache=cache, device="cpu", dtype="float32", start=str(tiny_model))


def trained(data: VideoSet, folder: Path, tiny_model: Path, cache: EmbeddingCache) -> Path:
    run = RunConfig(start=str(tiny_model), augment=AugmentConfig(views=1))
    train_solved(data, folder, run, SolveOptions(cache=cache, device="cpu", dtype="float32"))
    return folder


def without(data: VideoSet, label: str) -> VideoSet:
    return data.subset(row for row, sample in enumerate(data.samples) if label not in sample.labels)


def of(data: VideoSet, label: str) -> list[Sample]:
    return [sample for sample in data.samples if label in sample.labels]


def content(folder: Path) -> Content:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same_answers(one: Path, other: Path, data: VideoSet, tolerance: float) -> None:
    first, second = (load(path, device="cpu", dtype="float32", unknown="off") for path in (one, other))
    assert first.labels == second.labels
    for sample in data.samples[:6]:
        found = [predictor.predict(sample.path).scores for predictor in (first, second)]
        np.testing.assert_allclose(found[0], found[1], atol=tolerance)
        assert found[0].argmax() == found[1].argmax()


def test_a_taught_label_is_as_if_all_had_been_learned_together(
    three: VideoSet, tiny_model: Path, cache: EmbeddingCache, options: TeachOptions, tmp_path: Path
) -> None:
    whole = trained(three, tmp_path / "whole", tiny_model, cache)
    folder = trained(without(three, "steady"), tmp_path / "taught", tiny_model, cache)
    result = teach(folder, TeachChanges(yes={"steady": of(three, "steady")}), options)
    assert result.labels == ("redden", "steady", "turn blue")
    assert (result.num_new, result.examples) == (6, {"redden": 6, "steady": 6, "turn blue": 6})
    same_answers(whole, folder, three, 0.01)  # moments are kept as float16
    one, other = (read_model_file(path / "model.safetensors") for path in (whole, folder))
    assert isinstance(one.rejection, Rejection)
    assert isinstance(other.rejection, Rejection)
    np.testing.assert_allclose(one.rejection.thresholds, other.rejection.thresholds, atol=0.1)
    assert other.provenance["calibration"]["videos"] == one.provenance["calibration"]["videos"] == 18
    assert other.provenance["calibration"]["temperature"] == pytest.approx(
        one.provenance["calibration"]["temperature"], rel=0.05
    )
    assert sorted(other.provenance["training_videos"]) == sorted(one.provenance["training_videos"])
    assert other.provenance["started_from"] == one.provenance["started_from"]
    assert not (folder / "predictions.csv").exists()  # of the model before


def test_coordinates_say_what_moments_say(
    three: VideoSet,
    tiny_model: Path,
    cache: EmbeddingCache,
    options: TeachOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taught = {}
    for rows in (
        1024,
        36,
    ):  # eighteen clips of three views are 54 rows; of the other twelve, all 36 span the directions
        monkeypatch.setattr(features, "DIRECT_ROWS", rows)
        folder = trained(without(three, "steady"), tmp_path / f"m{rows}", tiny_model, cache)
        taught[rows] = teach(folder, TeachChanges(yes={"steady": of(three, "steady")}), options).folder
    space = read_state(taught[36] / "teaching.safetensors").features.space
    assert space is not None
    assert len(space.vectors) == 36
    # Standardised by twelve clips in place of eighteen, and the scale of the logits is a whole number: one step more is a tenth.
    same_answers(taught[1024], taught[36], three, 0.2)
    # One more brings a direction of its own; standardisation is as it was.
    path = tmp_path / "more.mp4"
    write_fading(path, 40, turned=True)
    teach(taught[36], TeachChanges(yes={"turn blue": [str(path)]}), options)
    grown = read_state(taught[36] / "teaching.safetensors").features
    assert grown.space is not None
    assert 36 < len(grown.space.vectors) <= 39
    assert grown.rows.shape == (19, 3, len(grown.space.vectors))
    np.testing.assert_array_equal(grown.space.mean, space.mean)
    teach(taught[1024], TeachChanges(yes={"turn blue": [str(path)]}), options)
    same_answers(taught[1024], taught[36], three, 0.2)


def test_old_labels_keep_their_scores_among_themselves(
    three: VideoSet, tiny_model: Path, cache: EmbeddingCache, options: TeachOptions, tmp_path: Path
) -> None:
    folder = trained(without(three, "steady"), tmp_path / "model", tiny_model, cache)
    before = load(folder, device="cpu", dtype="float32", unknown="off")
    teach(folder, TeachChanges(yes={"steady": of(three, "steady")[:3]}), options)
    after = load(folder, device="cpu", dtype="float32", unknown="off")
    for sample in without(three, "steady").samples:
        old, new = before.predict(sample.path), after.predict(sample.path)
        kept = new.scores[[after.labels.index(label) for label in before.labels]]
        np.testing.assert_allclose(kept / kept.sum(), old.scores, atol=0.15)
        assert new.label == old.label


def test_a_new_model_begins_with_one_label_and_background(
    three: VideoSet, cache: EmbeddingCache, options: TeachOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "doors"
    yes, no = of(three, "redden"), of(three, "turn blue")
    result = teach(folder, TeachChanges(yes={"redden": yes}, no={"redden": no}), replace(options, mirror=False))
    assert result.labels == ("background", "redden")
    assert result.has_judge
    answers = [load(folder, device="cpu").predict(sample.path).top(1)[0][0] for sample in (yes[0], no[0])]
    assert answers == ["redden", "background"]
    with (folder / "examples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["redden"] * 6 + ["background"] * 6
    assert rows[0]["path"] == str(Path(yes[0].path).resolve())
    data = read_data(folder / "examples.csv")
    assert data.counts() == {"background": 6, "redden": 6}
    assert {sample.group for sample in data.samples} == {f"group {number}" for number in range(6)}
    # A second label: background is none of the labels any more, but what the judge learns from.
    second = teach(folder, TeachChanges(yes={"steady": of(three, "steady")}), options)
    assert second.labels == ("redden", "steady")
    assert second.examples == {"background": 6, "redden": 6, "steady": 6}
    judge = load(folder, device="cpu").runtime.rejection
    assert judge is not None
    assert judge.num_actions == 2
    # And without it, background is a label again.
    assert teach(folder, TeachChanges(remove=["steady"]), options).labels == ("background", "redden")


def test_a_single_example_of_each_is_enough_to_begin(three: VideoSet, options: TeachOptions, tmp_path: Path) -> None:
    one, other = of(three, "redden")[0], of(three, "turn blue")[0]
    result = teach(tmp_path / "m", TeachChanges(yes={"redden": [one.path], "turn blue": [other.path]}), options)
    assert any("a single example cannot be left out" in note for note in result.notes)
    assert not result.has_judge
    found = load(tmp_path / "m", device="cpu").predict(one.path)
    assert found.top(1)[0][0] == "redden"
    assert found.scores.max() < 0.95  # nothing is known of how often it is right


def test_spans_of_one_film(options: TeachOptions, tmp_path: Path) -> None:
    film = tmp_path / "film@1-2.mp4"  # a file of this name is that file
    write_fading(film, 100, turned=False)
    changes = TeachChanges(
        yes={"early": [f"{film}@0-1", f"{film}@0.5-1.5"], "late": [f"{film}@2.5-", f"{film}@0:02-3"]}
    )
    result = teach(tmp_path / "m", changes, options)
    assert result.examples == {"early": 2, "late": 2}
    assert "all examples of early, late are of one video" in result.notes[0]
    samples = read_state(tmp_path / "m" / "teaching.safetensors").samples
    assert [(sample.start_s, sample.end_s) for sample in samples] == [(0, 1), (0.5, 1.5), (2.5, None), (2, 3)]
    assert load(tmp_path / "m", device="cpu").predict(str(film), end_s=1.0).top(1)[0][0] == "early"


def test_corrections(three: VideoSet, options: TeachOptions, tmp_path: Path) -> None:
    folder, red, blue = tmp_path / "m", of(three, "redden"), of(three, "turn blue")
    teach(folder, TeachChanges(yes={"redden": [*red, blue[0]], "turn blue": blue[1:]}), options)
    corrected = teach(folder, TeachChanges(yes={"turn blue": [blue[0].path]}), options)
    assert corrected.examples == {"redden": 6, "turn blue": 6}
    assert corrected.num_new == 0  # what is kept of it is enough
    assert teach(folder, TeachChanges(rename={"redden": "red"}), options).labels == ("red", "turn blue")
    assert teach(folder, TeachChanges(no={"red": [red[0].path]}), options).examples["background"] == 1
    stays = teach(folder, TeachChanges(no={"red": [blue[0].path]}), options)
    assert stays.examples == {"background": 1, "red": 5, "turn blue": 6}
    assert "stays an example of turn blue" in stays.notes[0]
    forgotten = teach(folder, TeachChanges(forget=[red[0].path]), options)
    assert forgotten.examples == {"red": 5, "turn blue": 6}
    teach(folder, TeachChanges(yes={"steady": of(three, "steady")}), options)
    merged = teach(folder, TeachChanges(rename={"steady": "red"}), options)
    assert merged.examples == {"red": 11, "turn blue": 6}
    # Nothing of what is gone is left behind: the same examples make the same model.
    anew = teach(
        tmp_path / "anew", TeachChanges(yes={"red": [*red[1:], *of(three, "steady")], "turn blue": blue}), options
    )
    same_answers(folder, anew.folder, three, 0.02)


def test_several_labels_a_video(three: VideoSet, options: TeachOptions, tmp_path: Path) -> None:
    folder, options = tmp_path / "m", replace(options, task="multilabel")
    red, blue = of(three, "redden"), of(three, "turn blue")
    result = teach(
        folder, TeachChanges(yes={"colour": [*red, *blue], "red": red}, no={"red": of(three, "steady")}), options
    )
    assert result.labels == ("colour", "red")
    assert result.examples == {"colour": 12, "red": 6}
    found = load(folder, device="cpu")
    assert len(found.runtime.thresholds) == 2
    teach(folder, TeachChanges(no={"colour": [red[0].path]}), options)
    samples = read_state(folder / "teaching.safetensors").samples
    assert [sample.labels for sample in samples if sample.path == str(Path(red[0].path).resolve())] == [("red",)]
    assert {sample.labels for sample in read_data(folder / "examples.csv", DataConfig(task="multilabel")).samples} >= {
        ("colour", "red"),
        (),
    }
    with pytest.raises(DataError, match="which label does it not show"):
        teach(folder, TeachChanges(no={"": [blue[0].path]}), options)


def broken(folder: Path) -> str:
    path = folder / "broken.mp4"
    path.write_bytes(b"no video")
    return str(path)


def test_bad_input_changes_nothing(three: VideoSet, options: TeachOptions, tmp_path: Path) -> None:
    folder, red = tmp_path / "m", of(three, "redden")
    teach(folder, TeachChanges(yes={"redden": red, "turn blue": of(three, "turn blue")}), options)
    before, clip = content(folder), of(three, "steady")[0].path
    refused: list[tuple[TeachChanges, type[FewframesError], str]] = [
        (TeachChanges(yes={"new": [clip, broken(tmp_path)]}), DataError, "1 of 2 new examples cannot be read"),
        (TeachChanges(yes={"new": [clip, "nowhere.mp4"]}), MissingVideo, "nowhere.mp4: no such video"),
        (TeachChanges(yes={"new": [f"{clip}@5-3"]}), DataError, "not after its start"),
        (TeachChanges(yes={"new": [f"{clip}@1..5-3"]}), DataError, "is no time"),
        (TeachChanges(yes={"": [clip]}), DataError, "a label without a name"),
        (TeachChanges(yes={"new": [clip], "other": [clip]}), DataError, "has one action"),
        (TeachChanges(yes={"new": [clip]}, no={"new": [clip]}), DataError, "both as showing"),
        (TeachChanges(forget=["nowhere.mp4"]), DataError, "is no example of this model"),
        (TeachChanges(remove=["reden"]), DataError, "did you mean 'redden'"),
        (TeachChanges(remove=["redden"]), DataError, "only 'turn blue' is left"),
        (TeachChanges(), ConfigError, "nothing to teach"),
    ]
    for changes, kind, words in refused:
        with pytest.raises(kind, match=words):
            teach(folder, changes, options)
    assert content(folder) == before
    with pytest.raises(MissingVideo):
        teach(tmp_path / "new", TeachChanges(yes={"a": ["nowhere.mp4"]}, no={"a": [clip]}), options)
    assert not (tmp_path / "new").exists()


def test_an_interruption_loses_nothing(
    three: VideoSet, options: TeachOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    teach(folder, TeachChanges(yes={"redden": of(three, "redden"), "turn blue": of(three, "turn blue")}), options)
    before = content(folder)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fewframes.training.teaching.files.write_model_file", stopped)
        with pytest.raises(KeyboardInterrupt):
            teach(folder, TeachChanges(yes={"steady": of(three, "steady")}), options)
    assert content(folder) == before


def test_many_examples_are_usable_before_the_judge_is(
    three: VideoSet, options: TeachOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "JUDGED_AT_ONCE", 10)
    folder, found = tmp_path / "m", []
    judged = solving.solve_judge

    def seen(state: Any) -> Any:
        found.append(load(folder, device="cpu", unknown="off").runtime.rejection)
        return judged(state)

    monkeypatch.setattr(teaching, "solve_judge", seen)
    result = teach(folder, TeachChanges(yes={"a": of(three, "redden"), "b": of(three, "turn blue")}), options)
    assert found == [None]
    assert result.has_judge
    assert result.judging_s > 0
    assert load(folder, device="cpu").runtime.rejection is not None


def test_into_another_folder(three: VideoSet, options: TeachOptions, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    teach(folder, TeachChanges(yes={"redden": of(three, "redden"), "turn blue": of(three, "turn blue")}), options)
    before = content(folder)
    more = TeachChanges(yes={"steady": of(three, "steady")})
    assert teach(folder, more, replace(options, output=tmp_path / "other")).folder == tmp_path / "other"
    assert content(folder) == before
    assert len(load(tmp_path / "other", device="cpu").labels) == 3
    with pytest.raises(ConfigError, match="holds .* already; take another folder"):
        teach(folder, more, replace(options, output=tmp_path / "other"))


def test_two_at_once_are_refused(three: VideoSet, options: TeachOptions, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    teach(folder, TeachChanges(yes={"redden": of(three, "redden"), "turn blue": of(three, "turn blue")}), options)
    with held(folder), pytest.raises(ConfigError, match="is writing to it"):
        teach(folder, TeachChanges(remove=["redden"]), options)


def test_models_without_examples_say_the_way_out(
    three: VideoSet, tiny_model: Path, options: TeachOptions, tmp_path: Path
) -> None:
    changes = TeachChanges(yes={"a": [of(three, "redden")[0].path]})
    with pytest.raises(WeightsError, match="fewframes teach FOLDER --model lite0-16"):
        teach("lite0-16", changes, options)
    with pytest.raises(WeightsError, match="keeps no examples"):
        teach(tiny_model, changes, options)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="other files and no model"):
        teach(tmp_path, changes, options)


def test_a_damaged_state_or_another_encoder_is_refused(
    three: VideoSet, options: TeachOptions, tmp_path: Path, tiny_model: Path
) -> None:
    folder, changes = tmp_path / "m", TeachChanges(remove=["redden"])
    teach(folder, TeachChanges(yes={"redden": of(three, "redden"), "turn blue": of(three, "turn blue")}), options)
    state = (folder / "teaching.safetensors").read_bytes()
    (folder / "teaching.safetensors").write_bytes(state[: len(state) // 2])
    with pytest.raises(WeightsError, match="is damaged"):
        teach(folder, changes, options)
    (folder / "teaching.safetensors").write_bytes(state)
    (folder / "model.safetensors").write_bytes(fewframes_model())
    with pytest.raises(WeightsError, match="another frame encoder"):
        teach(folder, changes, options)


def fewframes_model() -> bytes:
    """The packaged model, whose frame encoder is another one."""
    from fewframes.models.files.names import packaged_path

    return packaged_path("lite0-16").read_bytes()


def test_what_a_taught_model_has_no_longer_is_said(three: VideoSet, options: TeachOptions, tmp_path: Path) -> None:
    from fewframes.models.files.model_file import write_model_file

    folder = tmp_path / "m"
    teach(folder, TeachChanges(yes={"redden": of(three, "redden"), "turn blue": of(three, "turn blue")}), options)
    file = read_model_file(folder / "model.safetensors")
    write_model_file(
        folder / "model.safetensors", replace(file, provenance={**file.provenance, "alarms": {"per_day": 1}})
    )
    result = teach(folder, TeachChanges(rename={"redden": "red"}), options)
    assert any("promise of alarms of the model is gone" in note for note in result.notes)
    facts = json.loads((folder / "metrics.json").read_text())
    assert "alarms" not in facts
    assert facts["taught"] == {"red": 6, "turn blue": 6}


def test_the_public_names() -> None:
    assert fewframes.teach is teach
    assert fewframes.TeachChanges is TeachChanges
