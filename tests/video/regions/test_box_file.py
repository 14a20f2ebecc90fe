"""Files of boxes: what they are taken for, and what is said of wrong lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewframes.errors import DataError
from fewframes.video.regions.box_file import BoxFile, read_boxes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "boxes.csv"


def read(file: Path, text: str, rate: float = 10.0) -> BoxFile:
    file.write_text(text, encoding="utf-8-sig")
    return read_boxes(file, rate)


def test_csv_with_times(file: Path) -> None:
    found = read(file, "Track,time_s,x0,y0,x1,y1\nann,1.5,10,20,40,90\nbob,0,0,0,9,9\n\nann,0.5, 12 ,20,42,90\n")
    assert [track.name for track in found.tracks] == ["bob", "ann"]
    assert found.tracks[1].times_s.tolist() == [0.5, 1.5]
    assert found.tracks[1].boxes.tolist() == [[12, 20, 42, 90], [10, 20, 40, 90]]
    assert found.words == f"{file}: CSV, 3 lines, boxes in pixels, times in seconds: 2 tracks"


def test_csv_with_frames_and_sizes_in_fractions(file: Path) -> None:
    found = read(file, "frame,id,left,top,width,height\n0,3,0.1,0.2,0.3,0.4\n5,3,0.1,0.2,0.3,0.4\n", rate=25)
    assert found.tracks[0].times_s.tolist() == [0, 0.2]
    assert np.allclose(found.tracks[0].boxes[0], [0.1, 0.2, 0.4, 0.6])
    assert not found.tracks[0].in_pixels
    assert "boxes in fractions of the picture, frames from 0 at 25 frames/s: 1 track" in found.words


def test_mot_challenge(file: Path) -> None:
    text = "1,2,100,50,30,80,1,-1,-1,-1\n11,2,110,50,30,80,1,-1,-1,-1\n11,4,0,0,9,9,0,-1,-1,-1\n"
    found = read(file, text)
    assert found.tracks[0].times_s.tolist() == [0, 1]
    assert found.tracks[0].boxes.tolist() == [[100, 50, 130, 130], [110, 50, 140, 130]]
    assert [track.name for track in found.tracks] == ["2"], "a 0 in the seventh column leaves a box out"
    assert "MOT challenge, 2 lines, boxes in pixels, frames from 1 at 10 frames/s: 1 track" in found.words


@pytest.mark.parametrize("head", ["", "frame,x,y,w,h\n"])
def test_boxes_without_ids_are_followed(file: Path, head: str) -> None:
    ids = "" if head else "-1,"
    lines = [f"{frame},{ids}{x + 5 * frame},50,30,80\n" for frame in range(1, 9) for x in (20, 200)]
    found = read(file, head + "".join(lines))
    assert [len(track.times_s) for track in found.tracks] == [8, 8]
    assert found.words.endswith("2 tracks, followed because they have no ids")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no boxes in it"),
        ("time_s,x0,y0,x1,y1\n", "a header and no boxes"),
        ("time_s,x0,y0,x1\n1,2,3,4\n", "needs time_s or frame, and x0,y0,x1,y1"),
        ("x0,y0,x1,y1\n1,2,3,4\n", "needs time_s or frame"),
        ("time_s,x0,y0,x1,y1\n1,2,3,4,5\n1,2,3\n", "line 3 has 3 cells, and its header 5"),
        ("time_s,x0,y0,x1,y1\n1,2,3,four,5\n", "line 2: 'four' is no number"),
        ("time_s,x0,y0,x1,y1\nnan,2,3,4,5\n", "line 2: 'nan' is no number"),
        ("time_s,x0,y0,x1,y1\n1,2,3,2,5\n", "line 2: the box 2,3,2,5 is empty"),
        ("1,2,3,4\n", "line 1 has 4 cells; without a header it needs those of the MOT challenge"),
        ("0,1,2,3,4,5\n", "line 1 is of frame 0; frames of the MOT challenge begin with 1"),
        ("1,1,2,3,4,5,0\n", "all of its boxes are marked to be left out"),
    ],
)
def test_wrong_files(file: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(file, text)


def test_files_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(DataError, match=r"boxes\.csv: cannot be read \(No such file"):
        read_boxes(file, 10)
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="cannot be read"):
        read_boxes(file, 10)
