"""Tiny video classifiers with random weights, in folders as transformers writes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FAMILIES = ("videomae", "timesformer", "vivit", "vjepa2", "videoprism")
LABELS = ("open a door", "close a door", "wave")
CARD = "---\nlicense: cc-by-nc-4.0\n---\n# A model\n"
BODY = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
CROPPED = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}


def classifier_in(folder: Path, family: str, **settings: Any) -> Path:
    """Write a classifier of 4 frames with its processor and a card. `settings` are fields of its config."""
    library: Any = importlib.import_module("transformers")
    body = {**BODY, "num_hidden_layers": 2, "image_size": 32, "num_frames": 4}
    named = {"id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)}}
    jepa = {"crop_size": 32, "frames_per_clip": 4, "pred_hidden_size": 16, "pred_num_attention_heads": 2}
    depth = {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    # Each is made when it is asked for: older versions of transformers lack some of them.
    made: dict[str, Callable[[], tuple[str, Any, dict[str, Any]]]] = {
        "videomae": lambda: ("VideoMAE", library.VideoMAEImageProcessor(**CROPPED), {**body, "patch_size": 16}),
        "timesformer": lambda: ("Timesformer", library.VideoMAEImageProcessor(**CROPPED), {**body, "patch_size": 16}),
        "vivit": lambda: ("Vivit", library.VivitImageProcessor(**CROPPED), {**body, "tubelet_size": [2, 16, 16]}),
        "vjepa2": lambda: (
            "VJEPA2",
            library.VJEPA2VideoProcessor(crop_size=32),
            {**body, **jepa, "patch_size": 16, "pred_num_hidden_layers": 1, "num_pooler_layers": 1},
        ),
        "videoprism": lambda: (
            "VideoPrism",
            library.LlavaOnevisionVideoProcessor(size={"height": 36, "width": 36}, do_normalize=False),
            {**BODY, **depth, "image_size": 36, "num_frames": 4},
        ),
    }
    kind, processor, own = made[family]()
    torch.manual_seed(0)
    config = getattr(library, f"{kind}{'Vision' if family == 'videoprism' else ''}Config")
    network = getattr(library, f"{kind}ForVideoClassification")(config(**{**own, **named, **settings}))
    # Trained weights are larger than fresh ones, and a mistake then shows in the scores.
    torch.nn.init.normal_(network.classifier.weight)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder
