"""Show the frames that a model saw on pages: borders by attention (the paper's Figure 2), maps, and effects of omission."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from fewframes.core.text import html_of
from fewframes.viz.thumbnails import data_url, jpeg

if TYPE_CHECKING:
    from fewframes.inference.explain import Explanation
    from fewframes.models.config import MapMethod

HEAT = mpl.colormaps["YlOrRd"]
"""A colour map from light to dark as well as from yellow to red, so that it can be read without telling colours apart."""
MAP_WORDS: dict[MapMethod, str] = {
    "rollout": "rollout of all blocks' attention",
    "attention": "class token, last block",
    "grad-cam": "Grad-CAM of {label}",
}
SIDE_PX, MOST_FRAMES, MOST_TOP = 128, 16, 5
"""Pixels of a frame's side on a page, the most frames beside a mistake, and the most labels."""


def frames_of(
    frames_TCHW: NDArray[np.uint8], times_s: Sequence[float], attention_T: NDArray[np.float32]
) -> list[dict[str, object]]:
    """Return the frames of one video for `frames.html`. Of more than `MOST_FRAMES` that many are shown, at equal steps.

    Args:
        frames_TCHW: Frames (uint8).
        times_s: Timestamp of each frame.
        attention_T: Attention of each frame; its colours refer to all frames.
    """
    step = -(-len(times_s) // MOST_FRAMES)
    return [_frame(*shown) for shown in zip(frames_TCHW, times_s, attention_T, heat_of(attention_T), strict=True)][
        ::step
    ]


def explanation_page(explanation: Explanation) -> str:
    """Return an explanation as a page: its top labels, and all frames with their attention, maps and effects of omission."""
    prediction = explanation.prediction
    attention_T, drops_T = np.asarray(prediction.frame_attention), 100 * np.asarray(explanation.occlusion)
    frames_TCHW, maps_Thw = np.asarray(explanation.frames), shown_maps(explanation)
    shown = []
    for index, colour in enumerate(heat_of(attention_T)):
        frame_CHW, drop = frames_TCHW[index], float(drops_T[index])
        overlay = None if maps_Thw is None else data_url(jpeg(overlaid(frame_CHW, maps_Thw[index]), SIDE_PX))
        shown.append(
            {
                **_frame(frame_CHW, float(prediction.times_s[index]), float(attention_T[index]), colour),
                "map": overlay,
                "attention_width": f"{100 * attention_T[index] / attention_T.max():.1f}",
                "fall": f"{drop:+.2g} points",
                "fall_width": f"{100 * abs(drop) / max(1e-12, float(np.abs(drops_T).max())):.1f}",
                "rises": drop < 0,
            }
        )
    words = (
        None if explanation.map_method is None else MAP_WORDS[explanation.map_method].format(label=explanation.label)
    )
    values = {
        "title": f"{explanation.label} {explanation.score:.1%}",
        "source": os.path.basename(explanation.source),
        "num_frames": len(shown),
        "judgement": explanation.judgement,
        "top": [
            {"label": label, "score": f"{score:.1%}", "width": f"{100 * score:.1f}"}
            for label, score in prediction.top(MOST_TOP)
        ],
        "label": explanation.label,
        "equal": f"{1 / len(shown):.1%}",
        "map_words": words,
        "shown": shown,
        "agreement": explanation.agreement(),
    }
    return html_of("viz/templates/explanation.html", values)


def heat_of(attention_T: NDArray[np.float32]) -> list[str]:
    """Return a colour for each frame, from 0 to the highest attention."""
    return [to_hex(HEAT(float(weight))) for weight in attention_T / attention_T.max()]


def shown_maps(explanation: Explanation) -> NDArray[np.float32] | None:
    """Return the maps (T, h, w) in 0-1. Every patch has some attention, so the part that all of them have is not shown."""
    if explanation.maps is None:
        return None
    maps_Thw = np.asarray(explanation.maps, np.float32)
    return (maps_Thw - maps_Thw.min()) / max(1e-12, float(maps_Thw.max() - maps_Thw.min()))


def overlaid(frame_CHW: NDArray[np.uint8], map_hw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a frame with heat over it, the clearer the higher; nothing where the map (0-1) is 0."""
    _, height_px, width_px = frame_CHW.shape
    smooth = Image.fromarray(map_hw).resize((width_px, height_px), Image.Resampling.BICUBIC)
    heat_HW = np.asarray(smooth).clip(0, 1)
    colour_CHW = 255 * HEAT(0.25 + 0.75 * heat_HW)[..., :3].transpose(2, 0, 1)
    mixed_CHW = (1 - 0.9 * heat_HW) * frame_CHW + 0.9 * heat_HW * colour_CHW
    return mixed_CHW.round().astype(np.uint8)


def _frame(frame_CHW: NDArray[np.uint8], time_s: float, attention: float, colour: str) -> dict[str, object]:
    picture = data_url(jpeg(frame_CHW, SIDE_PX))
    return {
        "picture": picture,
        "time": f"{time_s:.2f} s",
        "attention": f"{attention:.1%}",
        "colour": colour,
        "map": None,
    }
