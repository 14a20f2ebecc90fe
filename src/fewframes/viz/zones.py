"""Draw zones into a picture of the camera, so that one sees whether they lie where they should."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fewframes.video.pictures.display import Pixels
from fewframes.video.regions.zone import Zone
from fewframes.viz.overlay import COLOURS

LEAST_SIDE, TEXT_PARTS = 480, 28
"""The shortest side, in pixels, up to which a picture is enlarged so that names can be read; a name is a 28th of it high."""


def zones_picture(frame_CHW: Pixels, zones: Sequence[Zone], form: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """Return a frame (C, H, W) with zones drawn into it and named, as the bytes of a PNG or JPEG file.

    The lines lie at the edges of the pixels that a zone has. Raises VideoError for a zone with too few of them.
    """
    height, width = frame_CHW.shape[-2:]
    scale = max(1, -(-LEAST_SIDE // min(height, width)))
    image = Image.fromarray(np.ascontiguousarray(frame_CHW.transpose(1, 2, 0)))
    image = image.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    size = max(12, min(image.size) // TEXT_PARTS)
    font, line = ImageFont.load_default(size), max(2, size // 8)
    for number, zone in enumerate(zones):
        colour, box = COLOURS[number % len(COLOURS)], zone.rectangle(0.0, height, width)
        left, top, right, bottom = (side * scale for side in box)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
        # The name lies inside, at the top left, so that a zone at the edge of the picture is named too.
        corner = (left + line, top + line)
        text_box = draw.textbbox((corner[0] + size // 4, corner[1]), zone.name, font=font)
        draw.rectangle((*corner, text_box[2] + size // 4, text_box[3] + size // 4), fill=colour)
        draw.text((corner[0] + size // 4, corner[1]), zone.name, font=font, fill="black")
    file = io.BytesIO()
    image.save(file, form, **({"quality": 92} if form == "JPEG" else {}))
    return file.getvalue()
