"""The detector: what it stores, what it refuses, and that numpy computes what torch computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fewframes.errors import ConfigError, WeightsError
from fewframes.inference.predictor import load
from fewframes.models.boundaries.boundaries import Boundaries, candidates_in, without_same
from fewframes.models.boundaries.features import NUM_FEATURES, features_of
from fewframes.models.boundaries.network import run_network
from fewframes.models.files.model_file import read_model_file, write_model_file
from fewframes.training.boundaries.network import DetectorNetwork
from helpers.boundaries import NUM_LABELS, WIDTH, drawn_boundaries, network_weights


@pytest.mark.parametrize("num_frames", [2, 7, 64, 97])
def test_numpy_computes_what_torch_computes(num_frames: int) -> None:
    torch.manual_seed(1)
    network = DetectorNetwork(NUM_FEATURES, NUM_LABELS).eval()
    features_NF = np.random.default_rng(2).normal(size=(num_frames, NUM_FEATURES)).astype(np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(features_NF)[None])
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    for level, (happening_1N, labels_1KN, distances_12N) in zip(run_network(features_NF, weights), wanted, strict=True):
        assert_allclose(level.happening, happening_1N[0].numpy(), atol=1e-4)
        assert_allclose(level.labels, labels_1KN[0].T.numpy(), atol=1e-4)
        assert_allclose(level.distances, distances_12N[0].T.numpy(), rtol=1e-4, atol=1e-4)


def test_features_of_a_still_are_those_of_nothing_moving() -> None:
    boundaries = drawn_boundaries()
    still_ND = np.repeat(np.random.default_rng(3).normal(size=(1, WIDTH)), 20, axis=0)
    features = features_of(
        (still_ND - boundaries.mean) @ boundaries.projection, boundaries.change_mean, boundaries.change_spread
    )
    assert features.shape == (20, NUM_FEATURES)
    assert_allclose(features, np.repeat(features[:1], 20, axis=0), atol=1e-4)


def test_a_detector_comes_back_from_arrays_and_from_text() -> None:
    boundaries = drawn_boundaries()
    rows_ND = np.random.default_rng(4).normal(size=(50, WIDTH)).astype(np.float32)
    before = boundaries.candidates(rows_ND)
    for again in (
        Boundaries.from_arrays(boundaries.to_arrays(), NUM_LABELS, WIDTH),
        Boundaries.from_text(boundaries.to_text(), NUM_LABELS, WIDTH),
    ):
        after = again.candidates(rows_ND)
        assert_allclose(after.starts, before.starts, atol=1e-5)
        assert (again.interval_s, again.threshold) == (boundaries.interval_s, boundaries.threshold)


def test_damaged_detectors_are_refused() -> None:
    arrays = drawn_boundaries().to_arrays()
    with pytest.raises(ConfigError, match="other arrays than expected: coefficients"):
        Boundaries.from_arrays({name: array for name, array in arrays.items() if name != "coefficients"}, NUM_LABELS)
    with pytest.raises(ConfigError, match="shape"):
        Boundaries.from_arrays(arrays, NUM_LABELS + 1)
    with pytest.raises(ConfigError, match="no numbers"):
        Boundaries.from_arrays(arrays | {"mean": np.full(WIDTH, np.nan, np.float32)}, NUM_LABELS)
    with pytest.raises(ConfigError, match="threshold 3"):
        Boundaries.from_arrays(arrays | {"settings": np.array([0.25, 3.0], np.float32)}, NUM_LABELS)
    with pytest.raises(ConfigError, match="damaged"):
        Boundaries.from_text("no text of ours", NUM_LABELS, WIDTH)


def test_a_model_file_keeps_its_detector(tiny_model: Path, tmp_path: Path) -> None:
    file = read_model_file(tiny_model)
    assert file.boundaries is None
    width = load(tiny_model, device="cpu").runtime.frame_width
    kept = drawn_boundaries(width, len(file.labels))
    write_model_file(tmp_path / "model.safetensors", replace(file, boundaries=kept))
    for runtime in ("torch", "onnxruntime") if file.graphs else ("torch",):
        found = load(tmp_path / "model.safetensors", device="cpu", runtime=runtime).runtime.boundaries
        assert found is not None
        rows_ND = np.random.default_rng(5).normal(size=(40, width)).astype(np.float32)
        assert_allclose(found.candidates(rows_ND).starts, kept.candidates(rows_ND).starts, atol=1e-5)
    broken = replace(kept, threshold=float("nan"))
    write_model_file(tmp_path / "broken.safetensors", replace(file, boundaries=broken))
    with pytest.raises(WeightsError, match=r"broken\.safetensors: its detector is damaged"):
        read_model_file(tmp_path / "broken.safetensors")


def test_spans_that_are_the_same_are_told_once() -> None:
    starts, ends = np.array([0.0, 1.0, 20.0, 0.0]), np.array([10.0, 10.0, 30.0, 40.0])
    assert without_same(starts, ends, [1, 0, 2, 3]) == [1, 2, 3]


def test_candidates_lie_inside_and_are_the_likeliest_first() -> None:
    weights = network_weights()
    weights["happening.bias"] = np.full(1, 2.0, np.float32)
    features_NF = np.random.default_rng(6).normal(size=(90, NUM_FEATURES)).astype(np.float32)
    found = candidates_in(features_NF, weights, (0, 90))
    assert len(found.starts) > 3
    assert (found.starts >= 0).all()
    assert (found.ends <= 90).all()
    assert (np.diff(found.happening) <= 0).all()
