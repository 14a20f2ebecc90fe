"""The settings of a server, and the kinds of requests that it takes."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from fewframes.core.settings import STRICT, Count, Positive
from fewframes.video.decode.container import Limits

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MOST_MOMENTS = 100
"""The most moments in one answer."""
Urls = Literal["none", "public", "any"]


@settings(frozen=True, kw_only=True, config=STRICT)
class ServeConfig:
    """The settings of a server: its limits, and the requests that it takes."""

    max_mb: Positive = 256.0
    """The largest video, in millions of bytes."""
    max_seconds: Positive = 900.0
    """The longest video, in seconds."""
    max_megapixels: Positive = 9.0
    """The largest frame, in millions of pixels; 4K has 8.3."""
    timeout_s: Positive = 120.0
    """Seconds for a request, with its upload and its time in the queue."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Videos that are decoded at the same time. 0 is two per core: one is decoded while another's frames are embedded."""
    max_waiting: Annotated[int, Field(ge=0)] = 16
    """Requests that may wait for a worker; more are refused."""
    root: str | None = None
    """Folder whose videos requests may name by path; None allows no paths."""
    urls: Urls = "none"
    """URLs that requests may name: `none`, `public` ones, or `any`, which includes this network."""
    token: str = ""
    """The secret that requests must send; empty for none."""
    names: tuple[str, ...] = ()
    """Host names under which the server may be asked, without ports; none allows any."""

    @property
    def num_workers(self) -> int:
        """Return the number of threads that work."""
        return self.workers or 2 * (os.cpu_count() or 1)

    @property
    def max_bytes(self) -> int:
        """Return the size of the largest video, in bytes."""
        return int(self.max_mb * 1e6)

    @property
    def limits(self) -> Limits:
        """Return the limits of the decoder."""
        return Limits(int(self.max_megapixels * 1e6), self.max_seconds)


@settings(frozen=True, kw_only=True, config=STRICT)
class VideoRequest:
    """A request about one video, or the part of it between two times."""

    url: str | None = None
    """Address of the video, if it is not uploaded."""
    path: str | None = None
    """Path of the video below the server's folder, if it is not uploaded."""
    model: str | None = None
    """Name of the model that answers, if the server has several; None is all of them."""
    start_s: Seconds = 0.0
    """Start of the part, in seconds."""
    end_s: Seconds | None = None
    """End of the part, in seconds; None is the end of the video."""


@settings(frozen=True, kw_only=True, config=STRICT)
class PredictRequest(VideoRequest):
    """A request for the likeliest actions in a video."""

    topk: Count = 5
    """Number of actions to name."""
    explain: bool = False
    """Add how much the score falls when each frame is left out."""
    pictures: bool = False
    """Add the frames that the model saw, as small JPEGs."""


@settings(frozen=True, kw_only=True, config=STRICT)
class TimelineRequest(VideoRequest):
    """A request for the actions in a long video and their times."""

    window_s: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] | None = None
    """Seconds of the shortest windows, about what an action lasts. Left out, spans are found as `fewframes timeline` finds them."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Confidence that a span needs. Left out, it is the detector's own, or 0.8 with windows."""
    progress: bool = False
    """Answer in lines of JSON: reports of progress, and the result last."""


@settings(frozen=True, kw_only=True, config=STRICT)
class CountRequest(VideoRequest):
    """A request for the number of repetitions of a movement."""


@settings(frozen=True, kw_only=True, config=STRICT)
class SearchRequest:
    """A request for moments of the server's index. At least one of `text`, `label`, `like` and `path` is given."""

    text: str | None = None
    """Words for what a moment shows."""
    not_text: str = ""
    """Words: moments that are more like them than like `text` are left out."""
    label: str | None = None
    """Label of the moments: one of the model's, or one that was taught."""
    like: str | None = None
    """Id of an earlier result: moments like that one."""
    path: str | None = None
    """Path of a video below the server's folder: moments like that one."""
    start_s: Seconds = 0.0
    """Start of the part of `path` to compare with, in seconds."""
    end_s: Seconds | None = None
    """End of that part; None is the end of the video."""
    videos: str = ""
    """Pattern of paths below the server's folder (`*`, `?`): only these videos are searched."""
    num: Annotated[int, Field(ge=1, le=MOST_MOMENTS)] = 20
    """Number of moments to find."""
    distinct: bool = False
    """At most one moment of each video."""
    pictures: bool = False
    """Add a small JPEG of each moment."""


@settings(frozen=True, kw_only=True, config=STRICT)
class EmbedRequest(VideoRequest):
    """A request for the embedding y of a video (Eq. 12)."""

    per_frame: bool = False
    """Add the embedding of each frame."""
