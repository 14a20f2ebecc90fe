"""Look for copies in labelled videos: make the footprint of each video, and match them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import num_cores, worked_ahead
from fewframes.core.storage import is_address
from fewframes.data.copies.footprint import Footprint, footprint_of
from fewframes.data.copies.found import Copy
from fewframes.data.copies.matching import find_copies
from fewframes.data.dataset import VideoSet, grouped
from fewframes.data.samples import Sample
from fewframes.errors import FewframesError
from fewframes.video.source import OpenVideo, open_video
from fewframes.video.times import checked_range

MOST_VIDEOS = 20_000
"""The most videos that are compared. Their footprints are held in memory, and the time grows with the square of their number."""
MOST_S = 600.0
"""The longest part of a video that is looked at, in seconds. Of a longer one it is the beginning."""


def too_many(num_videos: int) -> str:
    """Return words that say that copies are not looked for in so many videos; empty if they are."""
    if num_videos <= MOST_VIDEOS:
        return ""
    return f"copies are looked for in at most {MOST_VIDEOS:,} videos, and there are {num_videos:,}: check the list in parts"


def footprint_in(
    video: OpenVideo, sample: Sample, content: str, cache: EmbeddingCache | None = None
) -> Footprint | None:
    """Return the footprint of a sample; None if its frames cannot be decoded."""
    try:
        start_s, end_s = checked_range(video.duration_s, sample.start_s, sample.end_s)
        return footprint_of(video, start_s, min(end_s, start_s + MOST_S), content, cache)
    except (FewframesError, ValueError):  # whoever needs the video names the error
        return None


def copies_of(
    data: VideoSet, contents: Mapping[str, str], cache: EmbeddingCache | None = None, workers: int | None = None
) -> Iterator[int | list[Copy]]:
    """Find the videos that show the same footage. Yields the number of videos done after each file, and the copies at the end.

    Args:
        data: The labelled videos.
        contents: The content key of each file. A file without one is not looked at: it cannot be read, or is behind a URL.
        cache: A cache of footprints.
        workers: Number of files decoded at a time; by default one per core.
    """
    rows_by_file = grouped(range(len(data.samples)), lambda row: data.samples[row].path)
    footprints: list[Footprint | None] = [None] * len(data.samples)
    done = 0

    def look(rows: list[int]) -> list[Footprint | None]:
        path = data.samples[rows[0]].path
        if path not in contents or is_address(path):
            return [None] * len(rows)
        try:
            with closing(open_video(path, threads=1)) as video:
                return [footprint_in(video, data.samples[row], contents[path], cache) for row in rows]
        except (FewframesError, OSError, ValueError):  # whoever needs the video names the error
            return [None] * len(rows)

    with closing(worked_ahead(rows_by_file, look, workers or num_cores())) as found:
        for rows, of_file in found:
            if isinstance(of_file, FewframesError):
                raise of_file
            for row, footprint in zip(rows, of_file, strict=True):
                footprints[row] = footprint
            done += len(rows)
            yield done
    yield find_copies(footprints, [contents.get(sample.path, sample.path) for sample in data.samples])
