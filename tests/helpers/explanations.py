"""Explanations for tests of pictures and pages."""

from __future__ import annotations

import numpy as np

from fewframes.inference.explain import Explanation
from fewframes.results import Prediction, Reading, Timing


def explained(num_frames: int, *, maps: bool = True) -> Explanation:
    attention_T = np.arange(1, num_frames + 1, dtype=np.float32)
    prediction = Prediction(
        source="folder/$5 and _b_ of a very long name that does not fit beside a picture.mp4",
        labels=("hug", "$x_ a label of many, many letters, more than there is room for", "push"),
        scores=np.array([0.2, 0.7, 0.1], np.float32),
        times_s=np.arange(num_frames, dtype=np.float32) / np.float32(4),
        frame_attention=attention_T / attention_T.sum(),
        embedding=np.zeros(8, np.float32),
        frame_embeddings=np.zeros((num_frames, 8), np.float32),
        timing=Timing(0, 0, 0),
        reading=Reading(num_frames, 0, 0, 0),
    )
    return Explanation(
        prediction=prediction,
        frames=np.zeros((num_frames, 3, 32, 32), np.uint8),
        label="hug",
        occlusion=np.linspace(-0.1, 0.3, num_frames, dtype=np.float32),
        spearman=1.0,
        pearson=1.0,
        map_method="rollout" if maps else None,
        maps=np.random.default_rng(0).random((num_frames, 4, 4), np.float32) if maps else None,
    )
