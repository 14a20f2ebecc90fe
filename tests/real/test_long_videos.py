"""Real clips, one after the other with a held frame between: they are found where they are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from fewframes.inference.detection.spans import Span, overlap
from fewframes.inference.predictor import load
from fewframes.inference.timeline import sweep
from fewframes.video.source import open_video
from fewframes.video.transforms import fit_frame

FPS, STILL_S = 25, 4


def test_spans_lie_where_the_clips_are(shared: Path) -> None:
    predictor = load(device="cpu", dtype="float32")
    frames, true, at_s = [], [], 0.0
    for label in ("hug", "kick", "push", "handshake"):
        path = sorted((shared / "data" / "ut_interaction" / label).glob("*.avi"))[0]
        with closing(open_video(path)) as video:
            times_s = (np.arange(int(video.duration_s * FPS)) + 0.5) / FPS
            clip_TCHW = video.frames_at(times_s, lambda frame_CHW: fit_frame(frame_CHW, predictor.runtime.view)).frames
        frames += [*[clip_TCHW[0]] * (STILL_S * FPS), *clip_TCHW]
        at_s += STILL_S
        true.append(Span(at_s, at_s + len(clip_TCHW) / FPS, label))
        at_s += len(clip_TCHW) / FPS
    found = sweep(predictor, np.stack(frames), fps=FPS)
    hits = [any(span.label == one.label and overlap(span, one) > 0.3 for span in found.spans) for one in true]
    assert sum(hits) >= 3, found.spans
