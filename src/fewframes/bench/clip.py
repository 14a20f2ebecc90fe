"""Make a video to decode, for a bench without a video of the user."""

from __future__ import annotations

from pathlib import Path

import av
import torch
from torch.nn import functional as F

from fewframes.models.baselines.systems import FPS

WIDTH, HEIGHT = 340, 256
"""Size of the clip, in pixels."""


def write_clip(path: Path) -> Path:
    """Write a video like those of Kinetics-400, and return its path.

    It lasts 10 s and has 340x256 pixels, 30 frames/s and H.264 with every 12th frame a key frame. It shows a picture of noise
    that drifts under grain, which takes about as many bytes as a real video.
    """
    generator = torch.Generator().manual_seed(0)
    scene = torch.rand(1, 3, 40, 80, generator=generator)
    scene_CHW = F.interpolate(scene, size=(HEIGHT, 3 * WIDTH), mode="bicubic")[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = 12
        for number in range(10 * FPS):
            frame_CHW = scene_CHW[:, :, 2 * number : 2 * number + WIDTH]
            grain_CHW = 0.03 * torch.randn(frame_CHW.shape, generator=generator)
            pixels_HWC = (255 * (frame_CHW + grain_CHW).clamp(0, 1)).byte().permute(1, 2, 0).contiguous()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC.numpy(), format="rgb24")))
        container.mux(stream.encode())
    return path
