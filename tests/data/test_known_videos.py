"""Videos that a model has learned from are known again, wherever they lie, whole or in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewframes.data.known_videos import (
    SPOT_BYTES,
    known_facts,
    known_words,
    lineage,
    marks_of,
    num_known,
    without_marks,
)
from fewframes.data.layouts import Sample


def video(path: Path | str, start_s: float = 0.0, end_s: float | None = None) -> Sample:
    return Sample(path=str(path), labels=("hug",), start_s=start_s, end_s=end_s)


def test_by_what_they_hold_and_not_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"one")
    (tmp_path / "b.mp4").write_bytes(b"two")
    marks = marks_of([video(tmp_path / "a.mp4")])
    (tmp_path / "a.mp4").rename(tmp_path / "moved.mp4")
    assert num_known([video(tmp_path / name) for name in ("moved.mp4", "b.mp4")], marks) == 1


@pytest.mark.parametrize("place", [0, 5 * SPOT_BYTES, -1])
def test_large_files_differ_at_their_start_middle_or_end(tmp_path: Path, place: int) -> None:
    content = bytearray(10 * SPOT_BYTES)
    (tmp_path / "a.mp4").write_bytes(content)
    content[place] = 1
    (tmp_path / "b.mp4").write_bytes(content)
    assert num_known([video(tmp_path / "b.mp4")], marks_of([video(tmp_path / "a.mp4")])) == 0


@pytest.mark.parametrize(
    ("start_s", "end_s", "known"),
    [(0.0, None, 1), (0.0, 4.0, 0), (0.0, 4.5, 1), (7.9, 9.0, 1), (8.0, None, 0), (5.0, 6.0, 1)],
)
def test_parts_are_known_where_they_overlap(tmp_path: Path, start_s: float, end_s: float | None, known: int) -> None:
    (tmp_path / "a.mp4").write_bytes(b"one")
    marks = marks_of([video(tmp_path / "a.mp4", 4.0, 8.0)])
    assert num_known([video(tmp_path / "a.mp4", start_s, end_s)], marks) == known


def test_folders_of_pictures_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_bytes(b"one")
    samples = [video(tmp_path / "frames"), video("https://host/a.mp4")]
    marks = marks_of(samples)
    assert num_known(samples, marks) == 2
    (tmp_path / "frames" / "2.png").write_bytes(b"two")
    assert num_known([video(tmp_path / "frames"), video("https://host/b.mp4")], marks) == 0


def test_what_is_said() -> None:
    samples = [video("https://host/a.mp4"), video("https://host/b.mp4")]
    facts = known_facts(samples, {"training_videos": marks_of(samples[:1])}, "ff")
    assert facts == {"num_trained_on": 1, "trained_on_these": True}
    assert known_words(facts, 2).startswith("The model was trained on 1 of 2 videos.")
    assert known_words(known_facts(samples, {"training_videos": []}, "ff"), 2) == ""
    old = known_facts(samples, {"data_fingerprint": "ff"}, "ff")  # a model from before videos were remembered
    assert old == {"num_trained_on": None, "trained_on_these": True}
    assert "was trained on these data" in known_words(old, 2)
    assert known_words(known_facts(samples, {}, "ff"), 2) == ""


def test_videos_of_the_model_that_it_was_started_from_are_known_if_a_kept_part_saw_them() -> None:
    """A temporal encoder has always learned; a frame encoder only if it was not frozen, in any run before."""
    both = ["frame encoder", "temporal encoder"]
    frozen = {"data": "a", "training_videos": ["1"], "run": {"train": {"unfreeze": "none"}}}
    learned = {"data": "b", "training_videos": ["2"], "run": {"train": {"unfreeze": "all"}}}
    assert lineage("x", frozen, both)["training_videos"] == ["1"]
    assert lineage("x", frozen, both[:1])["training_videos"] == []
    assert lineage("x", learned, both[:1])["training_videos"] == ["2"]
    later = {**frozen, "started_from": lineage("x", learned, both[:1])}
    record = lineage("y", later, both[:1])
    assert (record["encoder_learned"], record["training_videos"]) == (True, ["1", "2"])
    assert (record["model"], record["data"], record["kept"]) == ("y", "a", ["frame encoder"])
    assert without_marks({"data": "c", "training_videos": [], "started_from": record})["started_from"]["data"] == "a"
    assert "training_videos" not in str(without_marks({"training_videos": [], "started_from": record}))
    samples = [video("https://host/a.mp4")]
    started = {"training_videos": [], "started_from": {"training_videos": marks_of(samples)}}
    assert known_facts(samples, started, "ff") == {"num_trained_on": 1, "trained_on_these": True}
