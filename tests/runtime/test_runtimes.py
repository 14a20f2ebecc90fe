"""Each runtime gives the answers of torch, by every verb; what only one can do is refused by the others with a way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fewframes.errors import ConfigError
from fewframes.runtime.open import open_runtime
from fewframes.runtime.protocol import scores_of


def test_scores_are_those_of_torch() -> None:
    logits_BK = 30 * np.random.default_rng(0).standard_normal((5, 7), dtype=np.float32)
    tensor = torch.from_numpy(logits_BK)
    assert_allclose(scores_of(logits_BK, "single"), tensor.softmax(-1).numpy(), rtol=1e-5, atol=1e-7)
    assert_allclose(scores_of(logits_BK, "multilabel"), tensor.sigmoid().numpy(), rtol=1e-5, atol=1e-6)
    assert scores_of(np.array([1e4, -1e4], np.float32), "multilabel").tolist() == [1, 0]
    assert scores_of(np.array([1e4, -1e4], np.float32), "single").tolist() == [1, 0]


def test_an_unknown_runtime_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="runtime 'onnx': did you mean 'onnxruntime'"):
        open_runtime(tiny_model, runtime="onnx")  # type: ignore[arg-type]
