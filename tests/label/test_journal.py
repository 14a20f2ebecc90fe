"""The journal of labels: what a kill, a full disk, an undo and a second annotator leave of it."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewframes.errors import DataError, OutputError
from fewframes.inference.detection.spans import overlap
from fewframes.label.journal import (
    JOURNAL_FILE,
    SAME,
    Entry,
    Journal,
    Labels,
    as_label,
    labels_of,
    redoable,
    span_of,
    undoable,
)
from fewframes.label.values import BACKGROUND, Segment


def added(key: str, label: str = "wave", start_s: float = 0.0, end_s: float = 4.0) -> dict[str, object]:
    return {"id": key, "video": "v", "start_s": start_s, "end_s": end_s, "label": label}


def written(folder: Path, *keys: str, annotator: str = "Zoë\u2028") -> Path:
    folder.mkdir(exist_ok=True)
    journal = Journal(folder)
    for key in keys:
        journal.append("add", annotator, segments=[added(key)])
    journal.close()
    return folder / JOURNAL_FILE


def ids(journal: Journal) -> list[str]:
    return [segment.id for segment in labels_of(journal.entries).segments]


def test_a_kill_at_any_byte_of_the_last_line_loses_that_line_alone(tmp_path: Path) -> None:
    file = written(tmp_path, "a", "b", "c")
    content = file.read_bytes()
    last = content[:-1].rfind(b"\n") + 1
    for size in range(last, len(content) + 1):
        file.write_bytes(content[:size])
        journal = Journal(tmp_path)
        whole = size == len(content)
        assert ids(journal) == (["a", "b", "c"] if whole else ["a", "b"])
        assert len(journal.notes) == (last < size < len(content))
        journal.append("add", "ada", segments=[added("d")])  # the next line begins a line
        journal.close()
        journal = Journal(tmp_path)
        assert ids(journal)[-2:] == (["c", "d"] if whole else ["b", "d"])
        journal.close()


def test_a_change_that_the_disk_refuses_leaves_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, "a")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    content = file.read_bytes()
    journal = Journal(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 50, before[1]))  # half a line fits
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            journal.append("add", "ada", segments=[added("refused")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == content
    journal.append("add", "ada", segments=[added("b")])
    assert ids(journal) == ["a", "b"]
    journal.close()
    again = Journal(tmp_path)
    assert ids(again) == ["a", "b"]
    again.close()
    with pytest.raises(DataError, match="the session has ended"):
        again.append("add", "ada", segments=[added("c")])


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        json.dumps({"id": "1", "time": "t", "annotator": "", "kind": "explode"}),
        json.dumps({"id": "1", "time": "t", "annotator": "", "kind": "add", "segments": [added("x", start_s=float("nan"))]}),
        json.dumps({"id": "1", "time": "t", "annotator": "", "kind": "measure"}),
        json.dumps({"id": "1", "time": "t", "annotator": "", "kind": "delete"}),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named_and_the_file_stays_as_it_is(tmp_path: Path, line: str) -> None:
    file = written(tmp_path, "a", "b")
    first, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(content := first + line.encode() + b"\n" + b"".join(rest) + b"half")
    with pytest.raises(DataError, match=r"labels\.jsonl:2: not a line of labels .*; remove it"):
        Journal(tmp_path)
    assert file.read_bytes() == content


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("add", "change", "delete", "rename", "undo", "redo")), st.integers(0, 3), st.sampled_from("abc")
    ),
    max_size=25,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_undo_brings_back_the_labels_before_and_redo_those_after(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    journal = Journal(folder := tmp_path_factory.mktemp("undo"))
    past, future = [Labels()], list[Labels]()
    for kind, number, label in steps:
        if kind in ("undo", "redo"):
            entry = (undoable if kind == "undo" else redoable)(journal.entries, "ada")
            assert (entry is not None) == bool(past[1:] if kind == "undo" else future)
            if entry is not None:
                journal.append("undo" if kind == "undo" else "redo", "ada", of=entry.id)
                if kind == "undo":
                    future.append(past.pop())
                else:
                    past.append(future.pop())
            assert labels_of(journal.entries) == past[-1]
            continue
        if kind == "add":
            journal.append("add", "ada", segments=[added(f"{number}", label)])
        elif kind == "change":
            journal.append("change", "ada", segment=f"{number}", label=label, end_s=number + 1.0)
        elif kind == "delete":
            journal.append("delete", "ada", segment=f"{number}")
        else:
            journal.append("rename", "ada", old=label, new="abc"[number % 3])
        past.append(labels_of(journal.entries))
        future.clear()
    journal.close()
    again = Journal(folder)
    assert labels_of(again.entries) == past[-1]
    again.close()


def test_each_annotator_undoes_their_own_changes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("add", "ada", segments=[added("a")])
    journal.append("add", "bob", segments=[added("b")])
    entry = undoable(journal.entries, "ada")
    assert entry is not None
    journal.append("undo", "ada", of=entry.id)
    assert ids(journal) == ["b"]
    assert undoable(journal.entries, "ada") is None
    assert redoable(journal.entries, "bob") is None
    journal.close()


def test_journals_of_two_annotators_become_the_same_labels_in_either_order(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1", "a", annotator="ada"), written(tmp_path / "2", "b", "c", annotator="bob")
    journal = Journal(second.parent)
    journal.append("rename", "bob", old="wave", new="greet")  # of all that was labelled before
    journal.append("measure", "", num_segments=3, accuracy=0.5)
    journal.close()
    second.write_bytes(second.read_bytes() + b'{"half of a li')
    found = []
    for own, other, num in ((first, second, 3), (second, first, 1)):
        copy = tmp_path / f"copy {num}"
        copy.mkdir()
        (copy / JOURNAL_FILE).write_bytes(own.read_bytes())
        merged = Journal(copy)
        assert merged.merge(other) == num  # without the accuracy, which is of another project
        assert merged.merge(other) == 0
        found.append(labels_of(merged.entries))
        merged.close()
        reread = Journal(copy)
        assert labels_of(reread.entries) == found[-1]
        reread.close()
    assert found[0] == found[1]
    assert [(segment.id, segment.label) for segment in found[0].segments] == [
        ("a", "greet"),
        ("b", "greet"),
        ("c", "greet"),
    ]
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read \(No such file"):
        reread.merge(tmp_path / "none.jsonl")


def test_a_change_after_a_merge_comes_last_whatever_the_clocks_say(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    ahead = Entry("add", "bob", {"segments": [added("a")]}, "2999-01-01T00:00:00.000000+00:00")
    (tmp_path / "1" / JOURNAL_FILE).write_text(ahead.to_line())
    journal = Journal(tmp_path)
    assert journal.merge(tmp_path / "1" / JOURNAL_FILE) == 1
    journal.append("delete", "ada", segment="a")
    assert ids(journal) == []
    journal.close()


def test_a_renamed_label_keeps_its_place_and_background_is_the_last(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for key, label in (("1", BACKGROUND), ("2", "wave"), ("3", "nod"), ("4", "bow")):
        journal.append("add", "ada", segments=[added(key, label)])
    assert labels_of(journal.entries).names == ("wave", "nod", "bow", BACKGROUND)
    journal.append("rename", "ada", old="wave", new="greet")
    assert labels_of(journal.entries).names == ("greet", "nod", "bow", BACKGROUND)
    journal.append("rename", "ada", old="bow", new="greet")  # merges the two
    assert labels_of(journal.entries).names == ("greet", "nod", BACKGROUND)
    journal.close()


RANGES = st.lists(
    st.tuples(st.sampled_from("vw"), st.integers(0, 20), st.integers(1, 8), st.sampled_from("ab")), max_size=12
)


@given(RANGES)
def test_disagreements_are_all_pairs_of_one_time_and_two_labels(ranges: list[tuple[str, int, int, str]]) -> None:
    segments = tuple(
        Segment(str(number), video, start, start + length, label, "ada")
        for number, (video, start, length, label) in enumerate(ranges)
    )
    labels = Labels(segments)
    wanted = {
        frozenset((one.id, other.id))
        for one in segments
        for other in segments
        if one.video == other.video and one.label != other.label and overlap(span_of(one), span_of(other)) >= SAME
    }
    assert {frozenset((one.id, other.id)) for one, other in labels.disagreements()} == wanted
    assert not {segment.id for segment in labels.agreed()} & {key for pair in wanted for key in pair}
    assert labels.num_disagreeing == len({key for pair in wanted for key in pair})


def test_labels_have_one_form() -> None:
    assert [as_label(text) for text in (" wave ", "", "None", "no_action")] == ["wave"] + 3 * [BACKGROUND]
    for text in ("a\nb", "x" * 201, "a\u2028b"):
        with pytest.raises(DataError, match="at most 200 characters"):
            as_label(text)
