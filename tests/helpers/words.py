"""A tiny image-text model that learns drawn shapes and their names in seconds, and videos of moving shapes.

It is written as open_clip writes models: a folder with the settings and the weights, which the product's own code loads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fewframes.models.words.phrases import TEMPLATES

SIDE_PX, FPS = 32, 10
COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 230), "yellow": (230, 220, 50)}
SHAPES = ("circle", "square", "cross")
PHRASES = (
    "stripes",
    "an empty picture",
    *(f"a {shape}" for shape in SHAPES),
    *(f"something {name}" for name in COLOURS),
)
"""Phrases that are no single shape of a colour: they stand for everything else."""
RED_AND_BLUE = "a red circle; a blue square"
OTHERS = "stripes; an empty picture; a cross; something yellow; something green"
"""Phrases that fit neither of the two labels."""
MODEL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIDE_PX, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
VIEW = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.3, 0.35], "interpolation": "bilinear", "resize_mode": "squash"}
STEPS, RATE = 400, 0.005


def picture(
    name: str,
    draw: np.random.Generator,
    centre: tuple[float, float] | None = None,
    *,
    haze: float = 0.0,
    noise: float = 8,
) -> NDArray[np.uint8]:
    """Draw what a name such as `red circle` says, of random size on random grey: (H, W, C) uint8.

    `haze` (0-1) mixes the colour with white, and `noise` is the spread of each pixel: a place that the model has not seen.
    """
    pixels = np.full((SIDE_PX, SIDE_PX, 3), draw.integers(90, 160), np.float64)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    words = name.split()
    colour = next((COLOURS[word] for word in words if word in COLOURS), COLOURS[draw.choice([*COLOURS])])
    shape = next((word for word in words if word in SHAPES), str(draw.choice(SHAPES)))
    if name == "stripes":
        pixels[(rows + draw.integers(6)) % 6 < 3] = 240
    elif name != "an empty picture":
        radius = draw.uniform(6, 10)
        y, x = centre or draw.uniform(radius, SIDE_PX - radius, 2)
        down, across = np.abs(rows - y), np.abs(columns - x)
        inside = {
            "circle": down**2 + across**2 < radius**2,
            "square": np.maximum(down, across) < 0.85 * radius,
            "cross": (np.minimum(down, across) < 0.3 * radius) & (np.maximum(down, across) < radius),
        }[shape]
        pixels[inside] = (1 - haze) * np.array(colour) + haze * 255
    return np.clip(pixels + draw.normal(0, noise, pixels.shape), 0, 255).astype(np.uint8)


def write_video(path: Path, name: str, seconds: float = 2.0, seed: int = 0) -> Path:
    """Write a video in which what the name says moves from left to right."""
    return write_parts(path, [name], seconds, seed)


def write_parts(path: Path, names: list[str], seconds: float = 2.0, seed: int = 0) -> Path:
    """Write a video of several parts, each of so many seconds, in which something moves from left to right."""
    draw = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 4 * SIDE_PX, 4 * SIDE_PX, "yuv420p"
        for name in names:
            for fraction in np.linspace(0, 1, int(FPS * seconds)):
                pixels = picture(name, draw, (SIDE_PX / 2, 10 + (SIDE_PX - 20) * float(fraction)))
                large = pixels.repeat(4, axis=0).repeat(4, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_image_text(folder: Path) -> Path:
    """Train the tiny image-text model, and write it into a folder as open_clip does."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same weights on every machine with any number of cores, and sooner
    draw = np.random.default_rng(0)
    model = open_clip.CLIP(**MODEL)
    tokenize = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    classes = [*((name, f"a {name}") for name in names), *((phrase, phrase) for phrase in PHRASES)]
    torch.nn.init.normal_(model.token_embedding.weight, std=0.3)
    model.token_embedding.weight.requires_grad_(False)  # random words are as good, and 49,408 of them need not be moved
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    mean, std = (torch.tensor(VIEW[part]).view(3, 1, 1) for part in ("mean", "std"))
    targets = torch.arange(len(classes))
    for _ in range(STEPS):
        pictures = np.stack([picture(name, draw) for name, _ in classes])
        frames = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - mean) / std
        images, words, scale = model(
            frames, tokenize([str(draw.choice(TEMPLATES)).format(text) for _, text in classes])
        )
        logits = scale * images @ words.T
        loss = torch.nn.functional.cross_entropy(logits, targets) + torch.nn.functional.cross_entropy(logits.T, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": VIEW}))
    save_file(
        {key: tensor.contiguous() for key, tensor in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder
