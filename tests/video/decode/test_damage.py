"""Damage: what is built on it is refused, the rest is read, and the number of the decoder's threads changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from fewframes.errors import VideoError
from fewframes.video.decode.codecs.unused import left_out_test
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.source import open_video
from helpers.mutated import SEEDS, Seed, decoded, digest, refilled, trials
from helpers.numbered import Numbered, numbers

THREADS = (1, 2, 0)


def test_of_a_hundred_mutants_none_is_read_wrong(tmp_path: Path) -> None:
    """But where full decodings differ among themselves, and FFmpeg says nothing of it."""
    found = list(trials(tmp_path, 100, seed=0))
    defined = [trial for trial in found if not trial.is_undefined]
    assert len(defined) > 90
    assert [str(trial) for trial in defined if trial.verdict == "wrong" or not trial.is_one] == []
    assert sum(trial.verdict == "right" for trial in defined) > 30
    assert sum(trial.verdict == "refused" for trial in defined) > 30


def said(path: Path, times_s: Sequence[float], threads: int) -> list[int | str]:
    """What number the picture at each time carries, or what is said against it."""
    answers: list[int | str] = []
    with closing(open_video(path, threads=threads)) as video:
        for time_s in times_s:
            try:
                answers += numbers(video.frames_at(np.array([time_s])).frames)
            except VideoError as error:
                answers.append(str(error).removeprefix(f"{path}: ")[:11])
    return answers


def with_packet(path: Path, place: int, change: str) -> Path:
    """A copy of a video in which the content of a packet is spoilt from its first tenth on, or cut there."""
    changed = path.with_stem(f"{path.stem}-{place}")
    with av.open(str(path)) as source, av.open(str(changed), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        content = bytes(packets[place])
        head = max(12, len(content) // 10)
        rest = np.random.default_rng(0).bytes(len(content) - head) if change == "spoilt" else b""
        packets[place] = refilled(packets[place], content[:head] + rest)
        copied = target.add_stream_from_template(stream)
        for packet in packets:
            packet.stream = copied
            target.mux(packet)
    return changed


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(
    "recipe",
    [
        Numbered(bframes=3, suffix=".mkv"),
        Numbered(bframes=2, suffix=".mov"),
        Numbered(bframes=0, suffix=".flv"),
        Numbered(codec="mpeg4", bframes=2),
        Numbered(codec="libvpx-vp9", suffix=".webm", options={"cpu-used": "8"}),
    ],
    ids=lambda recipe: f"{recipe.codec}{recipe.suffix}",
)
def test_what_is_built_on_damage_is_refused_up_to_the_next_key_frame(
    recipe: Numbered, threads: int, tmp_path: Path
) -> None:
    """The key frame of the damaged group comes out of the decoder after the error of the packet right behind it."""
    path = with_packet(recipe.write(tmp_path / "v"), 13, "spoilt")
    before, after = [0.02, 0.22, 0.42], [0.98, 1.22, 2.22]
    answers = said(path, [*before, 0.94, 0.9, *after], threads)
    assert answers[:3] == [0, 5, 10]
    assert [answer for answer in answers[3:5] if isinstance(answer, int)] == []
    assert answers[5:] == [24, 30, 55]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(
    "recipe",
    [Numbered(bframes=2), Numbered(codec="mpeg4", suffix=".mkv", bframes=2), Numbered(suffix=".flv")],
    ids=lambda recipe: f"{recipe.codec}{recipe.suffix}",
)
def test_times_count_from_the_first_picture_even_where_it_is_damaged(
    recipe: Numbered, threads: int, tmp_path: Path
) -> None:
    path = with_packet(recipe.write(tmp_path / "v"), 0, "cut")
    with closing(open_video(path, threads=threads)) as video:
        assert video.duration_s == pytest.approx(2.4, abs=0.05)
    answers = said(path, [0.0, 0.3, 0.5, 1.02], threads)
    assert [answer for answer in answers[:2] if isinstance(answer, int)] == []
    assert answers[2:] == [12, 25]


def test_where_nothing_says_when_pictures_are_shown_a_lost_first_one_is_the_end_of_it(tmp_path: Path) -> None:
    path = with_packet(Numbered(suffix=".avi", bframes=0).write(tmp_path / "v"), 0, "cut")
    for threads in THREADS:
        with pytest.raises(
            VideoError, match="its first picture is damaged, and nothing says when the others are shown"
        ):
            open_video(path, threads=threads)


@pytest.mark.parametrize(
    "kind", ["hevc-ts", "h264-ts", "h264-open-ts", "mpeg2-ts", "mpeg2-mpg", "h264-avi", "mpeg4-avi"]
)
def test_a_cut_end_gives_one_answer_with_any_number_of_threads(kind: str, tmp_path: Path) -> None:
    whole = SEEDS[kind].write(tmp_path / "whole")
    cut = tmp_path / f"cut{whole.suffix}"
    for missing in (60, 400, 1000, 3000):
        cut.write_bytes(whole.read_bytes()[:-missing])
        answers = set()
        for threads in THREADS:
            try:
                with closing(open_video(cut, threads=threads)) as video:
                    times_s = np.linspace(0, 0.999, 25) * video.duration_s
                    clip = video.frames_at(times_s)
                answers.add((str(clip.times_s.tolist()), clip.frames.tobytes()))
            except VideoError as error:
                answers.add((str(error), b""))
        assert len(answers) == 1, (missing, [words[:100] for words, _ in answers])


def test_a_mark_on_a_picture_that_nothing_needs_marks_what_follows(tmp_path: Path) -> None:
    """Packets of a transport stream are lost: FFmpeg marks the picture in which they are missed."""
    whole = SEEDS["h264-ts"].write(tmp_path / "whole")
    true = {round(picture.time_s, 3): picture.pixels for picture in decoded(whole)}
    content, lossy = whole.read_bytes(), tmp_path / "lossy.ts"
    num_marked = 0
    for place in range(20, len(content) // 188 - 6, 3):
        lossy.write_bytes(content[: 188 * place] + content[188 * (place + 4) :])
        with av.open(str(lossy)) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            unused = left_out_test(stream)
            assert unused is not None
            marks = [number for number, packet in enumerate(packets) if packet.is_corrupt and unused(bytes(packet))]
            if not marks or marks[0] + 3 >= len(packets) or any(one.is_keyframe for one in packets[marks[0] :][:4]):
                continue  # nothing is marked that could be left out, or a key frame mends it at once
            behind = packets[marks[0] + 2]
        num_marked += 1
        for threads in (1, 2):
            with closing(open_video(lossy, threads=threads)) as video:
                assert isinstance(video, FileVideo)
                assert behind.pts is not None
                wanted_s = float(behind.pts * behind.time_base) - video._origin_s + 0.01
                try:
                    clip = video.frames_at(np.array([wanted_s]))
                except VideoError:
                    continue
            assert digest(clip.frames[0].transpose(1, 2, 0)) == true.get(round(float(clip.times_s[0]), 3))
    assert num_marked >= 3


@pytest.mark.parametrize("threads", THREADS)
def test_packets_without_content_show_the_last_picture_on(threads: int, tmp_path: Path) -> None:
    """As in files with dropped frames; they are no end."""
    plain, path = Numbered(codec="libvpx", suffix=".mkv").write(tmp_path / "plain"), tmp_path / "dropped.nut"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        copied = target.add_stream_from_template(stream)
        for number, packet in enumerate(packets):
            sent = (
                refilled(packet, b"") if number in (23, 46, 47, 58, 59) else packet
            )  # each before a key frame, or last
            sent.stream = copied
            target.mux(sent)
    with closing(open_video(path, threads=threads)) as video:
        assert video.duration_s == pytest.approx(2.4)
        clip = video.frames_at(np.array([0.9, 0.94, 0.98, 1.9, 2.02, 2.3, 2.38]))
    assert numbers(clip.frames) == [22, 22, 24, 45, 50, 57, 57]


@pytest.mark.parametrize(
    ("seed", "change"),
    [
        (SEEDS["ffv1-mkv"], "spoilt"),
        (SEEDS["gif"], "cut"),
        (Seed(codec="msmpeg4", suffix=".mkv"), "spoilt"),
        (Seed(codec="cinepak", suffix=".avi", pix_fmt="rgb24"), "cut"),
        (Seed(codec="flashsv", suffix=".flv", pix_fmt="bgr24"), "spoilt"),
    ],
    ids=["checksum", "packed", "patched", "given up", "screen"],
)
def test_damage_that_a_decoder_only_logs_or_checks_when_asked(seed: Seed, change: str, tmp_path: Path) -> None:
    path = with_packet(seed.write(tmp_path / "v"), 5, change)
    for threads in THREADS:
        with closing(open_video(path, threads=threads)) as video, pytest.raises(VideoError, match="is damaged"):
            video.frames_at(np.array([0.21]))


def test_the_log_is_heard_by_us_alone_and_left_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = with_packet(Numbered(bframes=3, suffix=".mkv").write(tmp_path / "v"), 13, "spoilt")
    capfd.readouterr()
    for level in (None, av.logging.PANIC):
        av.logging.set_level(level)
        for threads in THREADS:
            with closing(open_video(path, threads=threads)) as video, pytest.raises(VideoError, match="is damaged"):
                video.frames_at(np.array([0.9]))
        assert av.logging.get_level() == level
    av.logging.set_level(None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("mov", "qtrle", "rgb24"),
        ("mov", "svq1", "yuv410p"),
        ("mov", "cfhd", "yuv422p10le"),
        ("flv", "flashsv", "bgr24"),
    ],
)
def test_decoders_that_mark_no_key_frames_give_sound_pictures(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str, threads: int
) -> None:
    path = Numbered(codec=codec, pix_fmt=pix_fmt, suffix=f".{suffix}").write(tmp_path / "intact")
    with closing(open_video(path, threads=threads)) as video:
        clip = video.frames_at(np.array([0.01, 0.21, 0.61]))
    assert numbers(clip.frames) == [0, 5, 15]


@pytest.mark.parametrize("threads", THREADS)
def test_what_an_open_group_misses_before_a_jump_is_no_damage(threads: int, tmp_path: Path) -> None:
    """Pictures behind its key frame give up ones before it, which H.264 calls an error. Nothing is read twice for that with one
    thread; of several, each makes a new error of it."""
    params = "keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1"
    path = Numbered(bframes=3, options={"x264-params": params}).write(tmp_path / "v")
    with closing(open_video(path, threads=threads)) as video:
        clip = video.frames_at(np.array([1.17, 2.02]))
    assert numbers(clip.frames) == [29, 50]
    assert clip.reading.frames_decoded <= (40 if threads == 1 else 60)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_a_file_that_was_cut_before_an_open_group_is_whole(threads: int, suffix: str, tmp_path: Path) -> None:
    """As tools cut that encode nothing: pictures behind the first key frame give up ones that were cut off."""
    params = "keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1"
    path = Numbered(bframes=3, suffix=".ts", options={"x264-params": params}).write(tmp_path / "whole")
    rest = (tmp_path / "rest").with_suffix(suffix)
    with av.open(str(path)) as source, av.open(str(rest), "w") as target:
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in packets[keys[2] :]:
            packet.stream = copied
            target.mux(packet)
    assert said(rest, [0.01, 0.05, 0.13, 0.33, 0.65], threads) == [24, 25, 27, 32, 40]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_recording_that_was_joined_on_is_no_damage_to_the_picture_before_it(
    threads: int, codec: str, tmp_path: Path
) -> None:
    """FFmpeg marks that picture, for the second recording counts its packets anew. Where it is lost, it is not shown."""
    first, second = (
        Numbered(codec=codec, suffix=".ts", bframes=0, times_ms=range(start_ms, start_ms + 2400, 40))
        .write(tmp_path / "part")
        .read_bytes()
        for start_ms in (1000, 3400)
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first + second)
    assert said(joined, [2.3, 2.37, 2.41, 3.0], threads) == [57, 59, 0, 15]
    joined.write_bytes(first[:-188] + second)
    assert said(joined, [2.37], threads) in (["the picture"], [58])
