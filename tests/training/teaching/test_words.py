"""Teaching a model that started from words: the words are taken as far as they help, kept, renamed, and left out with a note."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.data.dataset import VideoSet
from fewframes.data.samples import Sample
from fewframes.inference.predictor import load
from fewframes.models.files.model_file import read_model_file, write_model_file
from fewframes.models.moments import MOMENT_WEIGHTS, SOLVED_MOMENTS
from fewframes.training.config import RunConfig
from fewframes.training.solved.run import SolveOptions, train_solved
from fewframes.training.solved.words import Words
from fewframes.training.teaching import features
from fewframes.training.teaching.changes import TeachChanges
from fewframes.training.teaching.features import ExampleFeatures
from fewframes.training.teaching.state import read_state
from fewframes.training.teaching.teach import TeachOptions, teach
from helpers.words import RED_AND_BLUE, write_video

pytest.importorskip("open_clip")
NUM_MOMENTS = len(MOMENT_WEIGHTS[SOLVED_MOMENTS])
RED, BLUE = "a red circle", "a blue square"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        label: [str(write_video(folder / f"{label} {seed}.mp4", label[2:], seed=seed)) for seed in range(3)]
        for label in (RED, BLUE, "a green cross")
    }


@pytest.fixture
def options(words_file: Path) -> TeachOptions:
    return TeachOptions(device="cpu", dtype="float32", start=str(words_file))


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """These examples alone can be enough, depending on what the image-text model has learned on this machine."""
    monkeypatch.setattr("fewframes.training.solved.words.SHARES", (0.5,))


def share_of(folder: Path) -> float | None:
    return read_model_file(folder / "model.safetensors").provenance.get("share_of_text")


def test_a_single_example_of_each_is_added_to_what_the_words_say(
    clips: dict[str, list[str]], options: TeachOptions, words_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shapes"
    result = teach(folder, TeachChanges(yes={label: clips[label][:1] for label in (RED, BLUE)}), options)
    assert share_of(folder) == 1.0  # nothing is known of how good one example is
    assert "100% of what the words say was added" in result.notes
    # Without the words the same examples give another head.
    file = read_model_file(words_file)
    write_model_file(tmp_path / "plain.safetensors", replace(file, provenance={}))
    plain = replace(options, start=str(tmp_path / "plain.safetensors"))
    teach(tmp_path / "without", TeachChanges(yes={label: clips[label][:1] for label in (RED, BLUE)}), plain)
    assert share_of(tmp_path / "without") is None
    one, other = (read_model_file(path / "model.safetensors").tensors for path in (folder, tmp_path / "without"))
    width, heads = file.tensors["head.weight"].shape[1], [file.labels.index(label) for label in (BLUE, RED)]
    said, key = file.tensors["head.weight"][heads], "moment_head.linear.weight"
    difference = one[key] / np.linalg.norm(one[key]) - other[key] / np.linalg.norm(other[key])
    assert np.sum(difference[:, :width] * said) > 0  # towards what the words say


def test_it_is_as_train_makes_it_and_goes_on(
    clips: dict[str, list[str]], options: TeachOptions, half: None, tmp_path: Path
) -> None:
    samples = tuple(Sample(path=path, labels=(label,)) for label in (RED, BLUE) for path in clips[label])
    trained, taught, further = tmp_path / "trained", tmp_path / "taught", tmp_path / "further"
    train_solved(
        VideoSet(samples, "shapes"),
        trained,
        RunConfig(start=options.start),
        SolveOptions(device="cpu", dtype="float32"),
    )
    teach(taught, TeachChanges(yes={label: clips[label] for label in (RED, BLUE)}), options)
    teach(further, TeachChanges(yes={label: clips[label][:2] for label in (RED, BLUE)}), options)
    teach(further, TeachChanges(yes={label: clips[label][2:] for label in (RED, BLUE)}), options)
    scores = []
    for folder in (trained, taught, further):
        assert share_of(folder) == 0.5
        predictor = load(folder, device="cpu", dtype="float32", unknown="off")
        scores.append([predictor.predict(path).scores for path in (clips[RED][0], clips["a green cross"][0])])
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02)  # moments are kept as float16
    np.testing.assert_allclose(scores[1], scores[2], atol=0.02)
    teach(trained, TeachChanges(forget=clips[RED][:1]), options)  # what `train` wrote keeps the words, too
    assert share_of(trained) == 0.5


def test_names_and_labels_without_words(
    clips: dict[str, list[str]], options: TeachOptions, half: None, tmp_path: Path
) -> None:
    folder = tmp_path / "shapes"
    teach(folder, TeachChanges(yes={label: clips[label] for label in (RED, BLUE)}), options)
    before = load(folder, device="cpu", unknown="off").predict(clips[RED][0])
    result = teach(folder, TeachChanges(rename={RED: "ball"}), options)
    assert share_of(folder) == 0.5
    after = load(folder, device="cpu", unknown="off").predict(clips[RED][0])
    assert after.label == "ball"
    assert after.score == pytest.approx(before.score, abs=1e-3)
    result = teach(folder, TeachChanges(yes={"a green cross": clips["a green cross"]}), options)
    assert share_of(folder) is None
    assert any(note.startswith("a green cross: not among the words") for note in result.notes)
    teach(folder, TeachChanges(remove=["a green cross"]), options)
    assert share_of(folder) == 0.5  # the words are still there


def test_renamed_words() -> None:
    words = Words(("a", "b", "c"), np.arange(6, dtype=np.float32).reshape(3, 2))
    found = words.renamed({"a": "b", "c": "d"})
    assert dict(zip(found.labels, found.vectors[:, 0].tolist(), strict=True)) == {"b": 2.0, "d": 4.0}
    assert words.renamed({}).labels == words.labels


@pytest.mark.parametrize("direct_rows", [1024, 40])
def test_products_with_the_mean_of_the_frames(monkeypatch: pytest.MonkeyPatch, direct_rows: int) -> None:
    monkeypatch.setattr(features, "DIRECT_ROWS", direct_rows)
    draw = np.random.default_rng(0)
    moments = draw.normal(0, 1, (20, 2, 32 * NUM_MOMENTS)).astype(np.float16)
    if direct_rows == 40:
        moments = np.concatenate([moments, moments[:1]])  # one more than there are directions, and nothing of its own
    found = ExampleFeatures.of(moments, np.arange(len(moments)))
    assert (found.space is None) == (direct_rows == 1024)
    weights = draw.normal(0, 1, (4, 32)).astype(np.float32)
    some = np.array([3, 17, 5])
    np.testing.assert_allclose(
        found.products(some, weights), moments[some, :, :32].astype(np.float32) @ weights.T, atol=0.05
    )


def test_the_command_starts_from_labels_in_words(
    clips: dict[str, list[str]], image_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    folder = str(tmp_path / "shapes")
    examples = ["--label", RED, "--yes", clips[RED][0], "--label", BLUE, "--yes", clips[BLUE][0]]
    words = ["--labels", RED_AND_BLUE, "--encoder", str(image_text), "--device", "cpu"]
    done = CliRunner().invoke(app, ["teach", folder, *words, *examples])
    assert done.exit_code == 0, done.output
    assert "100% of what the words say was added" in done.output
    assert read_state(tmp_path / "shapes" / "teaching.safetensors").words is not None
    for wrong, said in (
        (["teach", folder, *words, *examples], "is for a new model"),
        (["teach", folder + "2", *words, "--task", "multilabel", *examples], "is for one action per video"),
        (["teach", folder + "2", *words, "--model", "lite0-16", *examples], "exclude each other"),
    ):
        done = CliRunner().invoke(app, wrong)
        assert done.exit_code == 2, done.output
        assert said in done.output
