"""Labelled spans of videos in the files of other tools: CVAT, Label Studio, ELAN, VIA, FiftyOne, subtitles and published lists.

`convert.py` reads and writes them. `formats.py` has the table of formats, and lists of these formats are read wherever a list is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.data.exchange.convert import read_spans as read_spans
    from fewframes.data.exchange.convert import write_spans as write_spans
    from fewframes.data.exchange.formats import FORMATS as FORMATS
    from fewframes.data.exchange.spans import LabelledSpans as LabelledSpans
    from fewframes.data.exchange.spans import VideoSpan as VideoSpan

__getattr__, __dir__ = lazy(
    "fewframes.data.exchange",
    {
        "read_spans": "convert",
        "write_spans": "convert",
        "FORMATS": "formats",
        "LabelledSpans": "spans",
        "VideoSpan": "spans",
    },
)
