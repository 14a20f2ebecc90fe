"""Several sources in one process: each is answered as if it were alone, whatever happens to the others."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewframes.errors import ConfigError, MissingVideo
from fewframes.inference.live.results import StreamPrediction
from fewframes.inference.live.streams import Streams, WatchedSource
from fewframes.inference.predictor import Predictor
from fewframes.runtime.protocol import Floats, Frames
from fewframes.video.live_queue import LiveEvent
from fewframes.video.live_settings import StreamConfig
from helpers.live_server import server
from helpers.numbered import Numbered

WINDOW = StreamConfig(window_s=0.4, stall_s=0.5, reconnects=2)
TS = Numbered(suffix=".ts", format="mpegts", gop=10, bframes=0)


def watched(name: str, path: Path | str, config: StreamConfig = WINDOW) -> WatchedSource:
    return WatchedSource(name=name, source=str(path), config=config)


def by_name(answers: list[StreamPrediction]) -> dict[str, list[StreamPrediction]]:
    return {name: [one for one in answers if one.source == name] for name in {answer.source for answer in answers}}


def test_each_source_is_answered_as_if_it_were_alone(predictor: Predictor, tmp_path: Path) -> None:
    paths = {
        "one": Numbered(times_ms=range(0, 2000, 40)).write(tmp_path / "one"),
        "two": Numbered(times_ms=range(0, 1200, 50)).write(tmp_path / "two"),
        "slow": Numbered(times_ms=range(0, 2000, 40)).write(tmp_path / "slow"),
    }
    configs = {"one": WINDOW, "two": WINDOW, "slow": replace(WINDOW, window_s=0.8, every_s=0.4)}
    with Streams(predictor, [watched(name, path, configs[name]) for name, path in paths.items()]) as streams:
        together = by_name(list(streams))
    for name, path in paths.items():
        alone = list(predictor.stream(str(path), configs[name]))
        assert len(alone) > 3
        assert [answer.end_s for answer in together[name]] == [answer.end_s for answer in alone]
        for one, other in zip(together[name], alone, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
            assert one.label == other.label
    summary = streams.summary()
    assert {name: own.num_predictions for name, own in summary.items()} == {
        name: len(own) for name, own in together.items()
    }
    assert streams.failures == {}


def test_a_source_that_is_no_video_does_not_touch_the_others(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    good = Numbered(times_ms=range(0, 1200, 40)).write(tmp_path / "good")
    streams = Streams(predictor, [watched("bad", tmp_path / "text.mp4"), watched("good", good)])
    answers = by_name(list(streams))
    assert set(answers) == {"good"}
    assert len(answers["good"]) == 9
    assert set(streams.failures) == {"bad"}
    assert "text.mp4: cannot be opened as a stream" in str(streams.failures["bad"])


def test_a_camera_that_comes_later_is_waited_for(predictor: Predictor, tmp_path: Path) -> None:
    content = TS.write(tmp_path / "late").read_bytes()
    heard: list[tuple[str, LiveEvent]] = []
    with server([], [content]) as url:  # the first one that asks is sent away
        streams = Streams(
            predictor,
            [watched("late", url, replace(WINDOW, reconnects=None)), watched("there", TS.write(tmp_path / "there"))],
            lambda name, event: heard.append((name, event)),
        )
        seen: list[str] = []
        for answer in streams:
            seen.append(answer.source)
            if seen.count("late") > 3:
                break
    assert seen.count("there") > 3
    kinds = [event.kind for name, event in heard if name == "late"]
    assert kinds[0] == "away"
    assert streams.failures == {}


def test_a_source_that_stays_away_is_given_up_if_its_settings_say_so(predictor: Predictor, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/live.ts"
    streams = Streams(predictor, [watched("gone", url), watched("there", TS.write(tmp_path / "there"))])
    assert {answer.source for answer in streams} == {"there"}
    assert "2 tries to open it again brought no picture" in str(streams.failures["gone"])


def test_an_overload_is_shared_by_all(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = predictor.runtime.embed_frames

    def slow(frames_TCHW: Frames) -> Floats:
        time.sleep(0.2 * len(frames_TCHW))
        return embed(frames_TCHW)

    monkeypatch.setattr(predictor.runtime, "embed_frames", slow)
    config = replace(WINDOW, live=True, window_s=0.16)  # 25 timestamps a second each; new pictures take long
    paths = [replace(TS, times_ms=range(0, 3000, 40)).write(tmp_path / name) for name in "abc"]
    streams = Streams(predictor, [watched(path.stem, path, config) for path in paths])
    answers = by_name(list(streams))
    counts = sorted(len(own) for own in answers.values())
    assert len(counts) == 3
    assert counts[-1] <= 1.5 * counts[0]
    dropped = [own.num_dropped for own in streams.summary().values()]
    assert min(dropped) > 10


def test_closing_ends_the_iteration_from_another_thread(predictor: Predictor, tmp_path: Path) -> None:
    path = replace(TS, times_ms=range(0, 60_000, 400)).write(tmp_path / "long")
    streams = Streams(predictor, [watched(name, path, replace(WINDOW, live=True)) for name in "ab"])
    timer = threading.Timer(1.0, streams.close)
    timer.start()
    began = time.monotonic()
    list(streams)
    assert time.monotonic() - began < 10


def test_bad_sources_are_refused_at_once(predictor: Predictor, tmp_path: Path) -> None:
    good = TS.write(tmp_path / "good")
    with pytest.raises(ConfigError, match=r"two sources have the name 'door'; give each its own: NAME=SOURCE"):
        Streams(predictor, [watched("door", good), watched("door", good)])
    with pytest.raises(ConfigError, match="no source to watch"):
        Streams(predictor, [])
    num_threads = threading.active_count()
    with pytest.raises(MissingVideo, match=r"nowhere.mp4: no such file"):
        Streams(predictor, [watched("a", good), watched("b", tmp_path / "nowhere.mp4")])
    assert threading.active_count() <= num_threads
