"""Give files that show the same footage one key, by which a split keeps them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

from fewframes.core.process import num_cores, worked_ahead
from fewframes.core.storage import is_address
from fewframes.data.copies.footprint import Footprint, footprint_of
from fewframes.data.copies.matching import copies_among
from fewframes.data.dataset import VideoSet, grouped
from fewframes.data.samples import Sample
from fewframes.errors import FewframesError
from fewframes.video.source import open_video
from fewframes.video.times import checked_range


def with_copies(data: VideoSet, contents: Mapping[str, str]) -> Iterator[int | dict[str, str] | None]:
    """Join the keys of files that show the same footage. Yields the number of files done after each, and the keys at the end.

    The last is None if there is too much footage to compare. A file that cannot be read, or is behind a URL, is not compared.

    Args:
        data: The labelled videos.
        contents: The key of the content of each path.
    """
    samples = data.samples
    footprints: dict[int, Footprint | None] = {}
    by_file = grouped(range(len(samples)), lambda row: samples[row].path)

    def look(rows: list[int]) -> list[Footprint | None]:
        return _footprints([samples[row] for row in rows])

    with closing(worked_ahead(by_file, look, num_cores())) as found:
        for number, (rows, of_file) in enumerate(found, 1):
            if isinstance(of_file, FewframesError):
                raise of_file
            footprints.update(zip(rows, of_file, strict=True))
            yield number
    copies = copies_among(footprints, [contents.get(sample.path, sample.path) for sample in samples])
    if copies is None:
        yield None
        return
    keys = dict(contents)
    for copy in copies:
        first, second = (samples[row].path for row in (copy.first, copy.second))
        kept, replaced = keys.setdefault(first, first), keys.setdefault(second, second)
        keys.update({path: kept for path, key in keys.items() if key == replaced})
    yield keys


def _footprints(samples: list[Sample]) -> list[Footprint | None]:
    """Return the footprints of the samples of one file; None if it cannot be read."""
    path = samples[0].path
    if is_address(path):
        return [None] * len(samples)
    try:
        with closing(open_video(path, threads=1)) as video:
            return [
                footprint_of(video, *checked_range(video.duration_s, sample.start_s, sample.end_s))
                for sample in samples
            ]
    except (FewframesError, OSError, ValueError):  # `data check` names the error
        return [None] * len(samples)
