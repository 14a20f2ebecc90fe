"""Matroska: its index is read before the first picture is decoded, so that this is not done twice."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from fewframes.video.source import open_video
from helpers.numbered import drifting


@pytest.mark.parametrize(
    ("codec", "options"),
    [("libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}), ("libx264", {"preset": "veryfast", "bf": "3"})],
)
def test_the_first_picture_of_matroska_is_decoded_once(codec: str, options: dict[str, str], tmp_path: Path) -> None:
    """Its index needs a jump, which empties the decoder."""
    path = drifting(tmp_path / "v.mkv", codec, 60, gop=25, options=options)
    with av.open(str(path)) as container:
        second = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][1]
    with path.open("rb") as file:
        for source in (str(path), file):
            with closing(open_video(source, threads=1)) as video:
                assert video.duration_s == pytest.approx(2.4, abs=0.01)
                clip = video.frames_at([0.05])
            assert np.array_equal(clip.frames[0].transpose(1, 2, 0), second)
            assert clip.reading.jumps == 0  # decoding went on behind the first picture


def test_matroska_that_begins_with_no_key_frame_is_indexed_after_its_first_picture(tmp_path: Path) -> None:
    """A recording that was cut: what lies before its first key frame is passed over."""
    whole = drifting(
        tmp_path / "whole.mkv", "libx264", 75, gop=25, options={"preset": "veryfast", "bf": "0", "sc_threshold": "0"}
    )
    cut = tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= 10 and packet.size:
                packet.stream = stream
                out.mux(packet)
    with av.open(str(whole)) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with closing(open_video(cut, threads=1)) as video:
        clip = video.frames_at([0.0, 0.5, 1.5])
    assert [
        next(index for index, frame in enumerate(frames) if np.array_equal(frame, shown.transpose(1, 2, 0)))
        for shown in clip.frames
    ] == [25, 37, 62]
