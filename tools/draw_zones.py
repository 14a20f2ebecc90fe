"""Draw the picture of docs/guide/zones.md: the two example clips side by side, with a zone on each.

    python tools/draw_zones.py docs/images/zones.png FILM.mp4

writes the film too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from fewframes.video.regions.zone import zones_of
from fewframes.viz.zones import zones_picture

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ZONES = ("left=0,0,0.5,1", "right=0.5,0,1,1")
SHOWN_FRAME = 62


def main() -> None:
    """Write both files."""
    picture, film = map(Path, sys.argv[1:3])
    clips = []
    for name in ("hug", "kick"):
        with av.open(str(EXAMPLES / f"{name}.mp4")) as container:
            clips.append([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    frames = [np.ascontiguousarray(np.concatenate(pair, axis=1)) for pair in zip(*clips, strict=True)]
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    shown_CHW = frames[SHOWN_FRAME].transpose(2, 0, 1).astype(np.uint8)
    picture.write_bytes(zones_picture(shown_CHW, zones_of(ZONES)))


if __name__ == "__main__":
    main()
