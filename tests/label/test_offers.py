"""What a session offers: suggestions, the next moment, doubts, and tiles to tag many at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fewframes.errors import DataError
from fewframes.inference.predictor import Predictor
from fewframes.label.pool import Pool
from fewframes.label.session import Session
from fewframes.label.values import BACKGROUND, Moment
from helpers.films import CYCLE, PART_S, label_parts, opened, write_films


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"), 5)


@pytest.fixture
def session(films: Path, tmp_path: Path, predictor: Predictor) -> Iterator[Session]:
    session = opened(films, tmp_path / "project", predictor)
    assert session.settle()
    yield session
    session.close()


def first_video(session: Session) -> str:
    return session.state().videos[0].id


def test_suggestions_are_spans_of_the_model_away_from_labels(session: Session) -> None:
    video = first_video(session)
    assert session.timeline(video).suggestions == ()
    for other in session.state().videos[1:]:
        for number, part in enumerate(CYCLE):
            session.add(other.id, PART_S * number, PART_S * (number + 1), part, "ada")
    assert session.settle()
    found = session.timeline(video)
    assert [(one.label, round(one.start_s / PART_S)) for one in found.suggestions] == [("redden", 0), ("turn blue", 2)]
    assert set(found.scores) == {"redden", "turn blue"}
    assert all(len(scores) == len(found.times_s) for scores in found.scores.values())
    middle = int(np.searchsorted(found.times_s, PART_S / 2))
    assert found.scores["redden"][middle] > 0.5 > found.scores["turn blue"][middle]
    session.add(video, 0.0, PART_S, "redden", "ada")
    assert session.settle()
    assert [one.label for one in session.timeline(video).suggestions] == ["turn blue"]
    one = session.timeline(video).suggestions[0]
    refused = session.refuse(video, one.start_s, one.end_s, one.label, "ada")
    assert refused.label == BACKGROUND
    assert session.settle()
    assert session.timeline(video).suggestions == ()


def test_every_moment_is_offered_once_without_what_was_labelled_or_skipped(session: Session) -> None:
    def asked(after: str = "") -> Moment | None:
        moment = session.next_moment(after)
        while moment is not None and moment.reason == "contradicting":
            moment = session.next_moment(moment.id)
        return moment

    seen: list[Moment] = []
    moment = asked()
    assert moment is not None
    assert moment.reason == "first"
    while moment is not None:
        for one in seen:
            shared_s = min(one.end_s, moment.end_s) - max(one.start_s, moment.start_s)
            assert one.video != moment.video or shared_s <= 0.25 * (one.end_s - one.start_s) + 1e-6
        seen.append(moment)
        if len(seen) % 2:
            moment = asked(moment.id)
        else:
            label = CYCLE[int((moment.start_s + moment.end_s) / 2 / PART_S)]
            session.add(moment.video, moment.start_s, moment.end_s, label, "ada")
            assert session.settle()
            moment = asked()
        assert len(seen) < 100
    assert len(seen) > 20  # 40 s of film in windows of one second
    assert asked() is None


@pytest.mark.parametrize("after", ["garbage", "gone:1:0", "gone:1:b"])
def test_a_moment_of_no_session_is_an_error_once(session: Session, after: str) -> None:
    with pytest.raises(DataError, match="of this session; reload the page"):
        session.next_moment(after)
    assert session.next_moment() is not None


def test_a_wrong_label_is_offered_and_doubted(session: Session) -> None:
    label_parts(session)
    assert session.settle()
    assert session.doubtful(5) == ()
    video = first_video(session)
    wrong = session.timeline(video).segments[0]
    session.change(wrong.id, "ada", label="turn blue")
    assert session.settle()
    doubts = session.doubtful(5)
    assert [(one.kind, one.segment, one.label, one.model_label) for one in doubts] == [
        ("wrong", wrong.id, "turn blue", "redden")
    ]
    assert session.timeline(video).doubtful == (wrong.id,)
    moment = session.next_moment()
    assert moment is not None
    assert (moment.reason, moment.guess, moment.start_s) == ("contradicting", "redden", 0.0)
    assert session.next_moment(moment.id) is None  # all is labelled


def test_two_labels_of_one_time_are_a_disagreement_and_teach_nothing(session: Session) -> None:
    label_parts(session)
    video = first_video(session)
    session.add(video, 0.1, 2.0, "turn blue", "bob")
    assert session.settle()
    assert session.state().num_disagreements == 1
    doubt = session.doubtful(1)[0]
    assert (doubt.kind, doubt.label, doubt.model_label) == ("disagreement", "redden", "turn blue")
    accuracy = session.state().accuracy
    assert accuracy is not None
    assert accuracy.protocol.startswith("19 segments")


@pytest.mark.parametrize("order", ["time", "likeness", "uncertain"])
def test_tiles_do_not_overlap_and_are_tagged_in_one_step(session: Session, order: str) -> None:
    session.add(first_video(session), 0.0, PART_S, "redden", "ada")
    session.add(first_video(session), PART_S, 2 * PART_S, "none", "ada")
    assert session.settle()
    whole = session.grid(100, 0, order)  # type: ignore[arg-type]
    assert whole.total == len(whole.tiles) == len({tile.id for tile in whole.tiles}) > 20
    pages = [session.grid(7, offset, order).tiles for offset in range(0, whole.total, 7)]  # type: ignore[arg-type]
    assert [tile for page in pages for tile in page] == list(whole.tiles)
    by_time = sorted(whole.tiles, key=lambda tile: (tile.video, tile.start_s))
    assert all(
        one.video != other.video or one.end_s <= other.start_s + 1e-6
        for one, other in zip(by_time, by_time[1:], strict=False)
    )
    before = session.state().num_segments
    assert session.tag([tile.id for tile in whole.tiles[:5]] + [whole.tiles[0].id], "turn blue", "ada") == 5
    assert session.settle()
    assert session.grid(100, 0, order).total == whole.total - 5  # type: ignore[arg-type]
    assert session.undo("ada") == "undone: 5 new segments of 'turn blue'"
    assert session.state().num_segments == before  # fmt: skip


def test_windows_near_labels_are_closed_as_a_slow_search_says() -> None:
    generator = np.random.default_rng(0)
    counts = (30, 1, 50)
    starts_s = np.concatenate([np.arange(count) * 1.0 for count in counts])
    video_W = np.repeat(np.arange(3), counts).astype(np.int32)
    pool = Pool(("a", "b", "c"), video_W, np.arange(81), starts_s, starts_s + 4.0, np.zeros((81, 2), np.float16))
    for _ in range(50):
        parts = [
            ("abcd"[generator.integers(4)], start_s, start_s + length_s)
            for start_s, length_s in zip(generator.uniform(-3, 60, 4), generator.uniform(0.1, 9, 4), strict=True)
        ]
        wanted = [
            all(
                "abc"[video] != other or min(start_s + 4, end) - max(start_s, start) <= 0.25 * min(4, end - start)
                for other, start, end in parts
            )
            for video, start_s in zip(video_W.tolist(), starts_s.tolist(), strict=True)
        ]
        assert pool.open_without(parts).tolist() == wanted
