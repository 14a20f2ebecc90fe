"""A labelling session: nothing is lost, whatever happens to its process and its videos, and its model is one like any other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import fewframes
from fewframes.data.dataset import read_data
from fewframes.errors import ConfigError, DataError, VideoError
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.label.journal import JOURNAL_FILE
from fewframes.label.session import Session
from fewframes.label.values import BACKGROUND
from helpers.films import CYCLE, PART_S, WINDOW_S, label_parts, opened, write_film, write_films
from helpers.flashes import watcher, write_flashes

LABELLER = """
import os, sys
from pathlib import Path
import fewframes
from fewframes.label.session import Session
session = Session.open([sys.argv[1]], Path(sys.argv[2]), fewframes.load(sys.argv[3]), model=sys.argv[3], cache=None, window_s=1.0)
session.start()
video = session.state().videos[0].id
for number in range(1000):
    session.add(video, 0.005 * number, 2.0 + 0.005 * number, "redden", "ada")
    print(number, flush=True)
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"), 5)


@pytest.fixture
def session(films: Path, tmp_path: Path, predictor: Predictor, tiny_model: Path) -> Iterator[Session]:
    session = opened(films, tmp_path / "project", predictor, model=tiny_model)
    assert session.settle()
    yield session
    session.close()


def test_the_model_of_a_session_answers_like_any_other(session: Session, tmp_path: Path) -> None:
    label_parts(session)
    model = tmp_path / "model"
    written = session.write_model(model)  # the last labels were not learned from yet
    assert written.folder == str(model)
    assert "left out:" not in written.figures
    assert "5 groups" in written.figures
    held = write_film(tmp_path / "held.mp4", ("none", "turn blue", "none", "redden"), green=75)
    predictor = fewframes.load(model, device="cpu")
    assert predictor.runtime.labels == ("redden", "turn blue")
    assert predictor.predict(held, start_s=6, end_s=8).label == "redden"
    assert predictor.predict(held, start_s=2, end_s=4).label == "turn blue"
    timeline = sweep(predictor, str(held), TimelineConfig(window_s=WINDOW_S, lengths=(1, 2), threshold=0.5))
    assert {(span.label, round(span.start_s / PART_S)) for span in timeline.spans} >= {("turn blue", 1), ("redden", 3)}
    session.write_model(model)  # replaces it


def test_a_model_of_one_action_and_background(session: Session, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs labels of two actions, or of one action and of parts that show none"):
        session.write_model(tmp_path / "model")
    for video in session.state().videos:
        session.add(video.id, 0.0, PART_S, "redden", "ada")
        session.add(video.id, PART_S, 2 * PART_S, "", "ada")
    session.write_model(tmp_path / "model")
    predictor = fewframes.load(tmp_path / "model", device="cpu")
    assert predictor.runtime.labels == (BACKGROUND, "redden")
    film = session.state().videos[0].path
    assert predictor.predict(film, start_s=0, end_s=PART_S).label == "redden"
    assert predictor.predict(film, start_s=PART_S, end_s=2 * PART_S).label in (BACKGROUND, "unknown")


def test_a_written_list_is_one_to_train_on(session: Session, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is labelled yet"):
        session.write_segments(tmp_path / "segments.csv")
    label_parts(session)
    assert session.write_segments(tmp_path / "segments.csv") == 20
    data = read_data(tmp_path / "segments.csv")
    assert sorted(data.labels) == [BACKGROUND, "redden", "turn blue"]
    assert {(sample.start_s, sample.end_s) for sample in data.samples} == {(0, 2), (2, 4), (4, 6), (6, 8)}
    assert len({sample.group for sample in data.samples}) == 5


@pytest.mark.parametrize(
    ("start_s", "end_s", "words"),
    [
        (5.0, 9.0, "5 to 9 s of film 0.mp4: needs a start before its end, inside the 8.00 s"),
        (-1.0, 2.0, "inside the 8.00 s"),
        (3.0, 2.0, "needs a start before its end"),
        (float("nan"), 2.0, "needs a start before its end"),
        (0.0, float("inf"), "needs a start before its end"),
        (1.0, 1.01, "needs at least 0.05 s; mark a longer part"),
    ],
)
def test_a_part_outside_the_video_is_no_segment(session: Session, start_s: float, end_s: float, words: str) -> None:
    video = session.state().videos[0].id
    kept = session.add(video, 1.0, 2.0, "redden", "ada")
    with pytest.raises(DataError, match=words):
        session.add(video, start_s, end_s, "redden", "ada")
    with pytest.raises(DataError, match=words):
        session.change(kept.id, "ada", start_s=start_s, end_s=end_s)
    assert session.timeline(video).segments == (kept,)
    assert session.add(video, 7.0, 8.3, "redden", "ada").end_s == 8.0  # half a second over the end is the end


def test_what_is_sent_twice_is_there_once_and_what_is_gone_is_named(session: Session) -> None:
    video = session.state().videos[0].id
    segment = session.add(video, 1.0, 2.0, "redden", "ada")
    assert session.add(video, 1.0, 2.0, " redden ", "ada") == segment
    assert session.undo("ada") == "undone: 1 new segment of 'redden'"
    with pytest.raises(DataError, match="nothing to undo: there is no change by ada"):
        session.undo("ada")
    for act in (lambda: session.delete(segment.id, "ada"), lambda: session.change(segment.id, "ada", label="x")):
        with pytest.raises(DataError, match="no segment of this id; it may have been deleted"):
            act()
    assert session.redo("ada") == "done again: 1 new segment of 'redden'"
    with pytest.raises(DataError, match="nothing to redo"):
        session.redo("ada")
    with pytest.raises(DataError, match="'blue': no segment has this label; the labels are redden"):
        session.rename_label("blue", "green", "ada")
    session.rename_label("redden", "blush", "ada")
    assert [(label.name, label.num_segments) for label in session.state().labels] == [("blush", 1)]
    with pytest.raises(DataError, match="'gone': no video of this session"):
        session.timeline("gone")


def test_many_threads_label_and_read_whole_states(session: Session) -> None:
    videos = [video.id for video in session.state().videos]
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(12):
                start_s = round(0.5 * number, 3)
                kept = session.add(videos[number % 5], start_s, start_s + 1.0, name, name)
                session.add(videos[number % 5], start_s, start_s + 1.5, "none", name)
                assert session.undo(name) == f"undone: 1 new segment of {BACKGROUND!r}"
                assert kept in session.timeline(kept.video).segments
                state = session.state()
                assert sum(label.num_segments for label in state.labels) == state.num_segments
                assert sum(video.num_segments for video in state.videos) == state.num_segments
                session.next_moment()
                session.grid(5, 0, "likeness")
                session.doubtful(3)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("ada", "bob", "cleo", "dan")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert session.settle()
    assert {label.name: label.num_segments for label in session.state().labels} == dict.fromkeys(
        ("ada", "bob", "cleo", "dan"), 12
    )


def test_a_killed_process_loses_no_label(films: Path, tmp_path: Path, predictor: Predictor, tiny_model: Path) -> None:
    project = tmp_path / "project"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", LABELLER, str(films / "film 0.mp4"), str(project), str(tiny_model)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(10):
            last = process.stdout.readline()
        with pytest.raises(ConfigError, match=rf"process {process.pid} on .* is writing to it"):
            opened(films, project, predictor)
        process.kill()
        last = [last, *process.stdout.read().splitlines()][-1]
    session = opened(films, project, predictor)
    assert session.state().num_segments in (int(last) + 1, int(last) + 2)  # one may have been written and not printed
    session.close()


def test_labels_follow_the_content_of_a_video(tmp_path: Path, predictor: Predictor) -> None:
    videos, project = write_films(tmp_path / "films", 2), tmp_path / "project"
    session = opened(videos, project, predictor)
    label_parts(session)
    path = Path(session.state().videos[0].path)
    session.settle()
    before = session.timeline(session.state().videos[0].id)
    session.close()
    (videos / "moved").mkdir()
    path.rename(videos / "moved" / "ünter anderem.mp4")
    session = opened(videos, project, predictor)
    assert session.settle()
    found = next(video for video in session.state().videos if video.name == "ünter anderem.mp4")
    assert found.num_segments == 4
    assert session.timeline(found.id).segments == before.segments
    session.close()
    shutil.rmtree(videos / "moved")
    session = opened(videos, project, predictor)  # labels of a video that is away are kept
    assert (session.state().num_segments, len(session.state().videos)) == (8, 1)
    session.close()


def test_a_video_that_disappears_is_left_out_of_the_model_and_named(
    tmp_path: Path, predictor: Predictor, tiny_model: Path
) -> None:
    session = opened(write_films(tmp_path / "films", 5), tmp_path / "project", predictor, model=tiny_model)
    label_parts(session)
    assert session.settle()
    gone = session.state().videos[0]
    os.remove(gone.path)
    assert len(session.timeline(gone.id).segments) == len(CYCLE)
    with pytest.raises(VideoError, match="no such file"):
        session.frame(gone.id, 1.0, 90)
    with pytest.raises(DataError, match="height 0: needs at least 1 pixel"):
        session.frame(session.state().videos[1].id, 1.0, 0)
    assert session.frame(session.state().videos[1].id, 1e9, 24).startswith(b"\xff\xd8")
    written = session.write_model(tmp_path / "model")
    assert "; 4 labels left out: they disagree, or their videos are not embedded yet, or gone" in written.figures
    session.close()
    with pytest.raises(DataError, match="the session has ended"):
        session.add(gone.id, 1.0, 2.0, "redden", "ada")


def test_the_labels_of_two_annotators_are_merged_when_a_session_opens(
    films: Path, tmp_path: Path, predictor: Predictor
) -> None:
    for annotator in ("ada", "bob"):
        session = opened(films, tmp_path / annotator, predictor)
        label_parts(session, annotator=annotator)
        session.close()
    session = opened(films, tmp_path / "ada", predictor, tmp_path / "bob" / JOURNAL_FILE)
    assert session.settle()
    state = session.state()
    assert (state.num_segments, state.num_disagreements) == (40, 0)
    assert state.accuracy is not None
    assert state.accuracy.protocol.startswith("20 segments")  # what both say teaches once
    assert len(session.timeline(state.videos[0].id).segments) == 8
    session.close()


def test_a_timeline_finds_the_embeddings_of_a_session(session: Session, predictor: Predictor) -> None:
    timeline = sweep(
        predictor, session.state().videos[0].path, TimelineConfig(window_s=WINDOW_S), cache=session.archive.cache
    )
    assert timeline.num_encoded == 0


def test_the_model_suggests_its_own_actions_before_the_first_label(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_flashes(tmp_path / "film.mp4", 24, {10.0: 0.95}, length_s=4.0)
    predictor = watcher(tiny_model, monkeypatch)
    found = Session.open([str(film)], tmp_path / "own", predictor, model=str(tiny_model), cache=None, window_s=2.0)
    found.start()
    try:
        assert found.settle()
        (video,) = found.state().videos
        before = found.timeline(video.id)
        assert {one.label for one in before.suggestions} == {"wave"}  # what is dark is background, and never suggested
        assert all(one.start_s >= 9 and one.end_s <= 15 for one in before.suggestions)
        assert list(before.scores) == ["wave"]
        found.add(video.id, 2.0, 4.0, "dark", "ann")
        found.add(video.id, 11.0, 13.0, "bright", "ann")
        assert found.settle()
        assert set(found.timeline(video.id).scores) == {"bright", "dark"}  # from the first labels on, those alone
    finally:
        found.close()
