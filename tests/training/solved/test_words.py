"""A solved head that starts from words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fewframes
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.models.files.model_file import ModelFile, read_model_file
from fewframes.models.moments import SOLVED_MOMENTS, moment_features
from fewframes.models.read_out.solve import cross_entropy, solve_moments
from fewframes.models.rejection.rejection import Rejection
from fewframes.models.words.files import encoder_of
from fewframes.training.config import RunConfig
from fewframes.training.solved.run import SolveOptions, train_solved
from fewframes.training.solved.words import with_words, words_start
from helpers.words import write_video

NUM, FRAMES, WIDTH, CLASSES = 3, 4, 24, 6


def clips(num: int, draw: np.random.Generator, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Frame embeddings of clips of six classes, which differ in what they show and in how it changes, and their targets."""
    times_T = np.linspace(-0.09, 0.09, FRAMES)[:, None]
    frames_KTD = np.eye(WIDTH)[:CLASSES, None] + times_T * np.eye(WIDTH)[CLASSES : 2 * CLASSES, None]
    frames = frames_KTD.repeat(num, axis=0)[:, None] + draw.normal(0, spread, (CLASSES * num, 1, 1, WIDTH))
    noise = draw.normal(0, 0.05, (CLASSES * num, 1, FRAMES, WIDTH))
    return (frames + noise).astype(np.float32), np.eye(CLASSES).repeat(num, axis=0)


def solved_with(text_KD: np.ndarray, seed: int = 0) -> dict[str, float]:  # type: ignore[type-arg]
    """How often words, examples and both are right, and the share of the text that was taken."""
    draw = np.random.default_rng(seed)
    embeddings, targets = clips(NUM, draw)
    groups = np.arange(len(targets))
    solved = solve_moments(embeddings, targets, cross_entropy, groups_B=groups, moments=SOLVED_MOMENTS)
    both = with_words(solved, text_KD.astype(np.float32), embeddings, targets, groups, cross_entropy)
    test, truth = clips(50, draw)
    moments = moment_features(test[:, 0], SOLVED_MOMENTS)
    logits = {
        "words": test[:, 0].mean(axis=1) @ text_KD.T,
        "examples": moments @ solved.weight.T + solved.bias,
        "both": moments @ both.weight.T + both.bias,
    }
    found = {name: float((rows.argmax(axis=1) == truth.argmax(axis=1)).mean()) for name, rows in logits.items()}
    return {**found, "share": both.share_of_text}


def test_words_and_examples_are_better_than_either() -> None:
    draw = np.random.default_rng(7)
    text_KD = 6 * (np.eye(WIDTH)[:CLASSES] + draw.normal(0, 0.25, (CLASSES, WIDTH)))  # right in the main
    runs = [solved_with(text_KD, seed) for seed in range(5)]
    mean = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    assert mean["both"] > mean["words"] + 0.02
    assert mean["both"] > mean["examples"] + 0.02


def test_words_that_say_nothing_are_not_taken() -> None:
    draw = np.random.default_rng(3)
    runs = [solved_with(6 * draw.normal(0, 1, (CLASSES, WIDTH)), seed) for seed in range(3)]
    assert all(run["share"] <= 0.1 for run in runs)
    assert all(run["both"] >= run["examples"] - 0.05 for run in runs)


def test_left_out_logits_are_those_of_the_weights_and_of_the_text() -> None:
    """The text sees no examples, so its part of the left-out logits is that of the final weights."""
    draw = np.random.default_rng(0)
    embeddings, targets = clips(NUM, draw)
    groups = np.arange(len(targets))
    text_KD = np.eye(WIDTH, dtype=np.float32)[:CLASSES] * 6
    solved = solve_moments(embeddings, targets, cross_entropy, groups_B=groups, moments=SOLVED_MOMENTS)
    both = with_words(solved, text_KD, embeddings, targets, groups, cross_entropy)
    assert both.share_of_text > 0
    text_NVK = embeddings[solved.indices].mean(axis=2) @ text_KD.T
    scale = both.gain / solved.gain
    np.testing.assert_allclose(both.left_out, scale * solved.left_out + both.share_of_text * text_NVK, atol=1e-4)
    added = both.weight - scale * solved.weight
    np.testing.assert_allclose(added[:, :WIDTH], both.share_of_text * text_KD, atol=1e-5)
    np.testing.assert_allclose(added[:, WIDTH:], 0, atol=1e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VideoSet:
    folder = tmp_path_factory.mktemp("clips")
    samples = [
        Sample(
            path=str(write_video(folder / f"{name} {seed}.mp4", name, seed=seed)),
            labels=(f"a {name}",),
            group=f"{name} {seed}",
        )
        for name in ("red circle", "blue square")
        for seed in range(3)
    ]
    return VideoSet(tuple(samples), "shapes", multilabel=False)


def test_a_run_that_starts_from_words_takes_them(
    words_file: Path, data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These examples alone can be enough, depending on what the image-text model has learned on this machine.
    monkeypatch.setattr("fewframes.training.solved.words.SHARES", (0.5,))
    pytest.importorskip("open_clip")
    options = SolveOptions(device="cpu", dtype="float32")
    result = train_solved(data, tmp_path / "out", RunConfig(start=str(words_file)), options)
    file = read_model_file(tmp_path / "out" / "model.safetensors")
    assert file.provenance["share_of_text"] == 0.5
    assert f"{file.provenance['share_of_text']:.0%} of what the words say was added" in result.notes
    assert isinstance(file.rejection, Rejection)  # videos were seen, so their own judge takes over
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["left_out"]["report"]["top1"] == 1.0
    # The model knows which encoder its frames are seen by, so that words are compared with its frames without naming it.
    assert file.provenance["started_from"]["text_encoder"]["weights"]
    assert encoder_of(file, "out").name == "clip:shapes"
    found = fewframes.load(tmp_path / "out", unknown="off").predict(
        write_video(tmp_path / "a.mp4", "red circle", seed=9)
    )
    assert found.label == "a red circle"


def test_labels_that_are_no_words_of_the_model_are_learned_from_examples_alone(
    words_file: Path, data: VideoSet, tmp_path: Path
) -> None:
    samples = [replace(sample, labels=(sample.labels[0].upper(),)) for sample in data.samples]
    data = replace(data, samples=tuple(samples))
    options = SolveOptions(device="cpu", dtype="float32")
    result = train_solved(data, tmp_path / "out", RunConfig(start=str(words_file)), options)
    assert any("A BLUE SQUARE, A RED CIRCLE: not among the words of the model" in note for note in result.notes)
    assert "share_of_text" not in read_model_file(tmp_path / "out" / "model.safetensors").provenance


def test_labels_of_any_number_and_other_models_have_no_text_start(words_file: Path, tiny_model: Path) -> None:
    words: ModelFile = read_model_file(words_file)
    assert words_start(words, ("a blue square",), multilabel=True) is None
    assert words_start(read_model_file(tiny_model), ("hug",), multilabel=False) is None
    start = words_start(words, ("a blue square", "a red circle"), multilabel=False)
    assert start is not None
    np.testing.assert_array_equal(start, words.tensors["head.weight"][::-1])
