"""Open the decoder of a video file, again where that is needed, and move it to a key frame."""

from __future__ import annotations

from collections.abc import Iterator

from fewframes.video.decode.complaints import Complaints
from fewframes.video.decode.container import DECODE_CLOCK, FROM_THE_START, OpenContainer, VideoFile
from fewframes.video.decode.damage import Damage
from fewframes.video.decode.packets import Feed
from fewframes.video.decode.passes import DecodeCounts, Decoding, ShownFrame
from fewframes.video.pictures.display import Display, Pixels

ERRORS = "explode+crccheck+bitstream+buffer+careful"
"""The settings of FFmpeg for what is an error: damage that it would patch up in silence, and data that no encoder writes."""


class DecoderSession:
    """The container and the decoder of a video file, from the first opening of the file to the last.

    Frames come from one pass at a time (`from_start`, `after_jump`); the one before it is over then.
    """

    def __init__(self, file: VideoFile, threads: int) -> None:
        """Note the file; `from_start` opens it. `threads` is the number of the decoder's threads, 0 is one a core."""
        self.is_careful = False
        """True if the decoder that is opened next tells which pictures are damaged. It has one thread then, and takes longer."""
        self.is_astray = False
        """True if the container stands elsewhere than where decoding would go on."""
        self.wanted_s: list[float] = []
        """The timestamps to decode, ascending on the container's clock; empty where every picture is to be decoded."""
        self.counts = DecodeCounts()
        self.num_jumps = 0
        self.complaints: Complaints
        """The messages that FFmpeg logs of the decoder. Frames are taken from a pass inside a `with` block of them."""
        self.source: OpenContainer
        """The open container."""
        self.feed: Feed
        """The packets of the current pass."""
        self._file, self._threads, self._opened = file, threads, False
        self._display = Display(file.name, file.limits.max_pixels, threads)
        self._decoding: Decoding
        self._num_left_out = 0

    def close(self) -> None:
        """Close the container, and end the decoder with its threads."""
        self._close_source()
        # Every attribute that holds the decoder is deleted, so that its threads end here.
        for name in ("_decoding", "feed", "source"):
            self.__dict__.pop(name, None)
        self._display.close()

    def _close_source(self) -> None:
        """Close the container and stop listening to its decoder."""
        if self._opened:
            if self.source.stream.codec_context.is_open:
                # Flushing waits for the decoder's threads, which may log until then; only after that nobody needs to listen.
                self.source.stream.codec_context.flush_buffers()
            self.complaints.close()
            self.source.container.close()
            self._opened = False

    @property
    def num_left_out(self) -> int:
        """Return how many packets were not decoded, because no wanted picture needs them."""
        return self._num_left_out + self.feed.num_left_out

    @property
    def damage(self) -> Damage | None:
        """Return the damage that the current pass met; None where the decoder does not tell (`is_careful`)."""
        return self._decoding.damage

    def want(self, times_s: list[float]) -> None:
        """Set the timestamps that are decoded next, on the container's clock; empty to decode every picture."""
        # In these containers not every packet says when its picture is shown, so nothing can be left out.
        self.wanted_s = self.feed.wanted_s = [] if self.source.format in DECODE_CLOCK | FROM_THE_START else times_s

    def pixels(self, shown: ShownFrame) -> Pixels:
        """Return a frame as a player shows it: (H, W, C) uint8 RGB."""
        return self._display.pixels(shown.frame, shown.geometry)

    def open(self) -> OpenContainer:
        """Open the file anew, and set its decoder up; `from_start` may follow. Raises VideoError."""
        self._close_source()
        self.source = self._file.open()
        self._opened = True
        threads = 1 if self.is_careful else self._threads
        self.complaints, self._marks = Complaints(has_threads=threads != 1), self.is_careful
        self._display.begin(self.source.stream)
        context = self.source.stream.codec_context
        # Threads that share the slices of one picture lose errors, so only threads for whole pictures are used. Decoders that
        # know no such threads run in one. Marks are copied from packets to frames with one thread only; damage.py says why.
        context.thread_type, context.thread_count, context.copy_opaque = "FRAME", threads, self._marks
        # Pictures that FFmpeg would patch up (by greying, smearing or repeating) are errors here.
        context.options = {"err_detect": ERRORS, "max_pixels": str(self._file.limits.coded_pixels)}
        return self.source

    def from_start(self) -> Iterator[ShownFrame]:
        """Return the frames from the start of the file, which was just opened, in the order of showing."""
        return self._decode(from_start=True)

    def after_jump(self, time_s: float) -> Iterator[ShownFrame]:
        """Jump to a key frame near `time_s` of the container's clock, before it if the container's index is right.

        Returns the frames from there on, in the order of showing. Raises FFmpegError where the stream cannot be entered midway.
        """
        self.source.container.seek(int(time_s / self.source.tick_s), stream=self.source.stream)
        self.num_jumps += 1
        self._num_left_out += self.feed.num_left_out
        return self._decode(from_start=False)

    def _decode(self, *, from_start: bool) -> Iterator[ShownFrame]:
        """Return the frames in the order of showing, from where the container stands."""
        self.is_astray = False
        damage = Damage(self.source.codec) if self._marks else None
        self._decoding = Decoding(
            self.source, self._display, self.counts, self.complaints, damage, from_start=from_start
        )
        self.feed = self._decoding.feed()
        self.feed.wanted_s = self.wanted_s
        return self._decoding.frames(self.feed)
