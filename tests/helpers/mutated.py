"""Damaged videos in plenty: small seeds of all containers and codecs, mutants of their bytes and packets, and a judge of readings.

The judge decodes a mutant from the start to the end with one thread, and holds against a picture all that FFmpeg raises, marks or
logs. A picture that is read is right when the unmutated file shows it at that time, or when the judge's decoding shows it there and
has nothing against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from fewframes.errors import VideoError
from fewframes.sampling import centre_times
from fewframes.video.decode.container import DECODE_CLOCK, MAX_PIXELS, READ_ERRORS
from fewframes.video.decode.opening import UNREADABLE_WORDS
from fewframes.video.pictures.display import Display, Pixels
from fewframes.video.source import open_video
from helpers.numbered import drifting

VideoPacket: TypeAlias = "Packet[VideoStream]"

SEED_FRAMES, SEED_PX = 50, 64
SAME_TIME_S = 2e-4
QUICK = {"preset": "veryfast"}
X265 = "log-level=none:keyint=12:min-keyint=12:bframes=3"


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A video to damage: how it is written."""

    codec: str
    suffix: str
    options: dict[str, str] = field(default_factory=dict)
    mux_options: dict[str, str] = field(default_factory=dict)
    gop: int = 12
    pix_fmt: str = "yuv420p"

    def write(self, path: Path) -> Path:
        """Write the video beside `path` with this format's ending."""
        return drifting(
            path.with_suffix(self.suffix), self.codec, SEED_FRAMES, gop=self.gop, options=self.options, size=SEED_PX,
            pix_fmt=self.pix_fmt, mux_options=self.mux_options,
        )  # fmt: skip


def _h264(suffix: str, bframes: int, *, gop: int = 12, params: str = "", **mux_options: str) -> Seed:
    options = QUICK | {"bf": str(bframes)} | ({"x264-params": params} if params else {})
    return Seed(codec="libx264", suffix=suffix, options=options, gop=gop, mux_options=mux_options)


def _hevc(suffix: str, params: str = "") -> Seed:
    return Seed(codec="libx265", suffix=suffix, options={"preset": "ultrafast", "x265-params": f"{X265}{params}"})


SEEDS = {
    "h264-mp4": _h264(".mp4", 3),
    "h264-plain-mp4": _h264(".mp4", 0, movflags="faststart"),
    "h264-open-mp4": _h264(".mp4", 3, params="open-gop=1:b-adapt=0", movflags="faststart"),
    "h264-fragments-mp4": _h264(".mp4", 2, movflags="frag_keyframe+empty_moov+default_base_moof"),
    "h264-refresh-mp4": _h264(".mp4", 0, params="intra-refresh=1", movflags="faststart"),
    "h264-mov": _h264(".mov", 3, gop=1000, movflags="faststart"),
    "h264-mkv": _h264(".mkv", 2),
    "h264-open-mkv": _h264(".mkv", 3, params="open-gop=1:b-adapt=0"),
    "h264-live-mkv": _h264(".mkv", 2, live="1"),
    "h264-ts": _h264(".ts", 2),
    "h264-open-ts": _h264(".ts", 3, params="open-gop=1:b-adapt=0"),
    "h264-slices-ts": _h264(".ts", 2, params="slices=4"),
    "h264-flv": _h264(".flv", 2),
    "h264-avi": _h264(".avi", 0),
    "h264-raw": _h264(".h264", 0),
    "h264-bframes-raw": _h264(".h264", 2),
    "hevc-mp4": _hevc(".mp4", ":open-gop=0"),
    "hevc-open-mkv": _hevc(".mkv", ":open-gop=1"),
    "hevc-ts": _hevc(".ts", ":open-gop=1"),
    "hevc-raw": _hevc(".hevc"),
    "mpeg4-avi": Seed(codec="mpeg4", suffix=".avi"),
    "mpeg4-bframes-avi": Seed(codec="mpeg4", suffix=".avi", options={"bf": "2"}),
    "mpeg4-bframes-mp4": Seed(codec="mpeg4", suffix=".mp4", options={"bf": "2"}, mux_options={"movflags": "faststart"}),
    "mpeg2-ts": Seed(codec="mpeg2video", suffix=".ts", options={"bf": "2"}),
    "mpeg2-mpg": Seed(codec="mpeg2video", suffix=".mpg", options={"bf": "2"}),
    "mpeg1-mpg": Seed(codec="mpeg1video", suffix=".mpg", options={"bf": "2"}),
    "vp8-webm": Seed(codec="libvpx", suffix=".webm", options={"deadline": "good", "cpu-used": "5"}),
    "vp8-ogv": Seed(codec="libvpx", suffix=".ogv", options={"deadline": "good", "cpu-used": "5"}),
    "vp9-webm": Seed(codec="libvpx-vp9", suffix=".webm", options={"deadline": "good", "cpu-used": "5"}),
    "vp9-hidden-mkv": Seed(codec="libvpx-vp9", suffix=".mkv", options={"lag-in-frames": "16", "cpu-used": "8"}),
    "av1-mp4": Seed(codec="libsvtav1", suffix=".mp4", options={"preset": "12"}, mux_options={"movflags": "faststart"}),
    "av1-webm": Seed(codec="libsvtav1", suffix=".webm", options={"preset": "12"}),
    "mjpeg-avi": Seed(codec="mjpeg", suffix=".avi", pix_fmt="yuvj420p"),
    "mjpeg-mov": Seed(codec="mjpeg", suffix=".mov", pix_fmt="yuvj420p", mux_options={"movflags": "faststart"}),
    "gif": Seed(codec="gif", suffix=".gif", pix_fmt="rgb8"),
    "ffv1-mkv": Seed(codec="ffv1", suffix=".mkv", options={"level": "3", "slicecrc": "1"}),
    "prores-mov": Seed(codec="prores_ks", suffix=".mov", pix_fmt="yuv422p10le", mux_options={"movflags": "faststart"}),
    "flv1-flv": Seed(codec="flv", suffix=".flv"),
    "wmv2-wmv": Seed(codec="wmv2", suffix=".wmv"),
    "msmpeg4-avi": Seed(codec="msmpeg4", suffix=".avi"),
}  # fmt: skip
"""By name. Every container and codec that can be written here and that people have."""


# -- mutants ---------------------------------------------------------------------------------------------------------

Change = Callable[[bytearray, np.random.Generator], bytearray]


def _place(content: bytearray, rng: np.random.Generator, length: int) -> int:
    return int(rng.integers(0, max(1, len(content) - length)))


def _flip_bits(content: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.choice([1, 3, 20])):
        content[_place(content, rng, 1)] ^= 1 << int(rng.integers(8))
    return content


def _scramble(content: bytearray, rng: np.random.Generator) -> bytearray:
    length = int(rng.choice([4, 64, 1000]))
    place = _place(content, rng, length)
    content[place : place + length] = rng.bytes(min(length, len(content) - place))
    return content


def _blank(content: bytearray, rng: np.random.Generator) -> bytearray:
    length = int(rng.choice([16, 188, 1500]))
    place = _place(content, rng, length)
    content[place : place + length] = bytes(min(length, len(content) - place))
    return content


def _cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: len(content) - int(rng.integers(1, len(content) // 3))]


def _remove(content: bytearray, rng: np.random.Generator) -> bytearray:
    """What is lost of a transfer: whole blocks, of a transport stream whole packets."""
    unit = int(rng.choice([1, 188, 512]))
    length = unit * int(rng.integers(1, max(2, 3000 // unit)))
    place = _place(content, rng, length) // unit * unit
    return content[:place] + content[place + length :]


def _repeat(content: bytearray, rng: np.random.Generator) -> bytearray:
    length = int(rng.choice([188, 512, 1316]))
    place = _place(content, rng, length) // 188 * 188
    return content[: place + length] + content[place:]


BYTE_CHANGES: dict[str, Change] = {
    "bits flipped": _flip_bits,
    "bytes scrambled": _scramble,
    "bytes blanked": _blank,
    "end cut": _cut,
    "bytes removed": _remove,
    "bytes repeated": _repeat,
}
PACKET_CHANGES = ("packets lost", "packet doubled", "packets swapped", "packet shortened")
CHANGES = (*BYTE_CHANGES, *PACKET_CHANGES)


def mutate(seed: Path, mutant: Path, kind: str, rng: np.random.Generator) -> None:
    """Write the seed with a change of this kind."""
    if kind in BYTE_CHANGES:
        mutant.write_bytes(BYTE_CHANGES[kind](bytearray(seed.read_bytes()), rng))
        return
    with av.open(str(seed)) as source, av.open(str(mutant), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        place = int(rng.integers(0, len(packets) - 4))
        if kind == "packets lost":
            del packets[place : place + int(rng.integers(1, 4))]
        elif kind == "packet doubled":
            packets[place + 1] = refilled(packets[place + 1], bytes(packets[place]))
        elif kind == "packets swapped":
            one, other = packets[place : place + 2]
            packets[place : place + 2] = refilled(one, bytes(other)), refilled(other, bytes(one))
        else:
            content = bytes(packets[place])
            packets[place] = refilled(packets[place], content[: max(1, int(len(content) * rng.uniform(0.1, 0.95)))])
        copied = target.add_stream_from_template(stream)
        for packet in packets:
            packet.stream = copied
            target.mux(packet)


def refilled(packet: VideoPacket, content: bytes) -> VideoPacket:
    """Return a packet with another content at the same time."""
    filled: VideoPacket = Packet(content)  # type: ignore[assignment]
    filled.pts, filled.dts, filled.time_base, filled.duration = (
        packet.pts,
        packet.dts,
        packet.time_base,
        packet.duration,
    )
    filled.is_keyframe = packet.is_keyframe
    return filled


# -- the judge -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A picture of a full decoding, and when it is first shown, in seconds from the start of the video."""

    time_s: float
    pixels: bytes
    """A digest of them."""
    damaged: bool


@dataclass
class _Position:
    """A packet in the order of decoding: what is held against it, and what came of it."""

    is_key: bool
    stamp: int | None
    complaint: bool
    has_frame: bool = False
    time_s: float = 0.0
    is_entry: bool = False
    """Whether decoding can begin here: a key frame in all of its parts (one that refreshes them by and by is none)."""
    is_corrupt: bool = False
    pixels: bytes = b""


def decoded(path: Path, *, hold: bool = False) -> list[Picture]:
    """Return all pictures of a file, decoded from the start to the end with one thread, in the order of showing; those damaged that
    FFmpeg raised, marked or logged anything about, and what is built on them. Empty where the file cannot be opened.

    `hold` keeps all frames. Where that changes pixels, the decoder has shown what it did not decode, and says nothing of it.
    """
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logged, av.open(str(path), **UNREADABLE_WORDS) as container:
            if not container.streams.video or container.streams.video[0].codec_context is None:
                return []
            return _judged(container, logged, hold)
    except (FFmpegError, IndexError, ValueError):
        return []
    finally:
        av.logging.set_level(None)
        av.logging.set_skip_repeated(True)


def _judged(container: InputContainer, logged: list[tuple[int, str, str]], hold: bool) -> list[Picture]:
    positions, tick_s = (
        _positions(container, logged, hold),
        float(container.streams.video[0].time_base or Fraction(1, 1000)),
    )
    shown = [position for position in positions if position.has_frame]
    if not shown:
        return []
    start = next((position for position in positions if position.is_key), shown[0])
    if not start.has_frame:  # where it should have stood
        origin_s = shown[0].time_s if start.stamp is None else start.stamp * tick_s
    else:  # in an open group pictures may be shown before the first key frame
        origin_s = start.time_s if start is not positions[0] else min(position.time_s for position in shown)
    pictures = []
    damaged, leading_damaged, entry = not positions[0].is_key, False, positions[0]
    for position in positions:
        if position.is_entry and not position.complaint:
            damaged, leading_damaged, entry = False, damaged, position
        leads = position.stamp is not None and entry.stamp is not None and position.stamp < entry.stamp
        if position.complaint and leads:  # of an open group: nothing that is shown after the key frame builds on it
            leading_damaged = True
        damaged = damaged or (position.complaint and not leads)
        if position.has_frame:
            is_bad = damaged or position.is_corrupt or (leading_damaged and position.time_s < entry.time_s)
            pictures.append(Picture(position.time_s - origin_s, position.pixels, is_bad))
    return sorted(pictures, key=lambda picture: picture.time_s)


def _positions(container: InputContainer, logged: list[tuple[int, str, str]], hold: bool) -> list[_Position]:
    stream = container.streams.video[0]
    context, by_decoding = stream.codec_context, container.format.name in DECODE_CLOCK
    context.thread_count, context.copy_opaque = 1, True
    tick_s = float(stream.time_base or Fraction(1, 1000))
    frame_s = float(1 / (stream.average_rate or stream.guessed_rate or Fraction(25)))
    positions: list[_Position] = []
    held: list[VideoFrame] = []
    last_s, display = -frame_s, Display("the reference", MAX_PIXELS)
    display.begin(stream)
    logged.clear()
    try:
        for packet in container.demux(stream):
            is_end = packet.size == 0 and packet.dts is None
            if packet.size == 0 and not is_end:
                continue
            stamp = packet.dts if by_decoding else packet.pts
            position = _Position(bool(packet.is_keyframe), stamp, bool(packet.is_corrupt))
            if not is_end:
                positions.append(position)
                packet.opaque = position
            try:
                frames = context.decode(None if is_end else packet)
            except FFmpegError:
                frames, position.complaint = [], True
            for frame in frames:
                frame.time_base = stream.time_base
                stamp = frame.dts if by_decoding else frame.pts
                last_s = last_s + frame_s if stamp is None else stamp * tick_s
                of = frame.opaque if isinstance(frame.opaque, _Position) else position
                of.has_frame, of.time_s, of.is_corrupt = True, last_s, bool(frame.is_corrupt)
                of.is_entry = bool(frame.key_frame) and frame.pict_type == PictureType.I
                held += [frame] if hold else []
                of.pixels = digest(display.pixels(frame, display.geometry(frame)))
            position.complaint = position.complaint or bool(logged)
            logged.clear()
    except READ_ERRORS:
        pass
    return positions


def digest(pixels_HWC: Pixels) -> bytes:
    """Return what is the same for the same pixels alone."""
    return hashlib.sha256(np.ascontiguousarray(pixels_HWC).tobytes() + str(pixels_HWC.shape).encode()).digest()


def shown_at(pictures: list[Picture], time_s: float) -> list[Picture]:
    """Return the pictures that are first shown at this time."""
    return [picture for picture in pictures if abs(picture.time_s - time_s) < SAME_TIME_S]


Verdict = Literal["right", "refused", "wrong"]


@dataclass(frozen=True)
class Answer:
    """A reading with so many threads: what became of it, and what was wrong in it."""

    threads: int
    verdict: Verdict
    said: str
    times_s: tuple[float, ...] = ()


def read(path: Path, wanted: list[float], threads: int, whole: list[Picture], found: list[Picture]) -> Answer:
    """Read a mutant at these fractions of its length, and hold what comes against the pictures of the unmutated file and of its own
    full decoding."""
    try:
        with closing(open_video(path, threads=threads)) as video:
            clip = video.frames_at(np.array(wanted) * video.duration_s)
    except VideoError as error:
        return Answer(threads, "refused", str(error).removeprefix(f"{path}: "))
    times_s = tuple(round(time_s, 4) for time_s in clip.times_s.tolist())
    first = [one.pixels for one in found if abs(one.time_s) < SAME_TIME_S]
    cut_s = next(
        (one.time_s for one in whole if one.pixels in first), 0.0
    )  # where it begins, when its beginning was cut off
    wrong = []
    for frame_CHW, time_s in zip(clip.frames, times_s, strict=True):
        pixels = digest(frame_CHW.transpose(1, 2, 0))
        sound = [
            *shown_at(whole, time_s),
            *shown_at(whole, time_s + cut_s),
            *(one for one in shown_at(found, time_s) if not one.damaged),
        ]
        if pixels not in {picture.pixels for picture in sound}:
            wrong.append(time_s)
    return Answer(threads, "wrong" if wrong else "right", f"wrong at {wrong}" if wrong else "", times_s)


def fractions(rng: np.random.Generator) -> list[float]:
    """Return moments to ask for: 16 in the middles of equal parts, a few, or many at random."""
    count = int(rng.choice([0, 3, 24]))
    return centre_times(1.0, 16).tolist() if count == 0 else rng.uniform(0, 1, count).tolist()


@dataclass(frozen=True)
class Trial:
    """A mutant of a seed, read with one thread, two, and one a core."""

    number: int
    seed: str
    change: str
    answers: tuple[Answer, ...]
    is_undefined: bool
    """Whether a full decoding says something else every time, without a word from FFmpeg."""

    @property
    def verdict(self) -> Verdict:
        """Wrong where one answer is; right where none is, and one is right."""
        verdicts = {answer.verdict for answer in self.answers}
        return "wrong" if "wrong" in verdicts else "right" if "right" in verdicts else "refused"

    @property
    def is_one(self) -> bool:
        """Whether all answers are the same."""
        return len({(answer.verdict, answer.times_s) for answer in self.answers}) == 1

    def __str__(self) -> str:
        said = "; ".join(f"threads {answer.threads}: {answer.verdict} {answer.said}" for answer in self.answers)
        undefined = " (undefined)" if self.is_undefined else ""
        return f"{self.number} {self.seed}, {self.change}{undefined}: {said}"


def trials(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """Write seeds and so many mutants of them into a folder, and try each; the same ones for the same `seed`."""
    wholes: dict[str, tuple[Path, list[Picture]]] = {}
    names = list(SEEDS)
    for number in range(count):
        name = names[number % len(names)]
        if name not in wholes:
            path = SEEDS[name].write(folder / name)
            wholes[name] = path, decoded(path)
        path, whole = wholes[name]
        rng = np.random.default_rng([seed, number])
        kind = CHANGES[int(rng.integers(len(CHANGES)))]
        mutant = folder / f"{number:04}-{name}{path.suffix}"
        try:
            mutate(path, mutant, kind, rng)
        except (FFmpegError, ValueError):  # a container that cannot hold packets in such an order
            mutate(path, mutant, kind := "bits flipped", rng)
        found, wanted = decoded(mutant), fractions(rng)
        answers = tuple(read(mutant, wanted, threads, whole, found) for threads in (1, 2, 0))
        yield Trial(number, name, kind, answers, found != decoded(mutant, hold=True))
        mutant.unlink()
