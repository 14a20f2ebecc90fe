"""Explanations for tests of pictures and pages."""

from __future__ import annotations

import torch

from fewframes.inference.explain import Explanation
from fewframes.results import Prediction, Reading, Timing


def explained(num_frames: int, *, maps: bool = True) -> Explanation:
    attention_T = torch.arange(1, num_frames + 1).float()
    prediction = Prediction(
        source="folder/$5 and _b_ of a very long name that does not fit beside a picture.mp4",
        labels=("hug", "$x_ a label of many, many letters, more than there is room for", "push"),
        scores=torch.tensor([0.2, 0.7, 0.1]),
        times_s=torch.arange(num_frames) / 4,
        frame_attention=attention_T / attention_T.sum(),
        embedding=torch.zeros(8),
        frame_embeddings=torch.zeros(num_frames, 8),
        timing=Timing(0, 0, 0),
        reading=Reading(num_frames, 0, 0, 0),
    )
    return Explanation(
        prediction=prediction,
        frames=torch.zeros(num_frames, 3, 32, 32, dtype=torch.uint8),
        label="hug",
        occlusion=torch.linspace(-0.1, 0.3, num_frames),
        spearman=1.0,
        pearson=1.0,
        map_method="rollout" if maps else None,
        maps=torch.rand(num_frames, 4, 4) if maps else None,
    )
