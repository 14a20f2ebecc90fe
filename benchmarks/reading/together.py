"""What several decoders of one file gain over one decoder with threads: seconds by the clock for 16 uniform frames.

    python -m benchmarks.reading.together --videos FOLDER --clips DATA/clips > benchmarks/reading/together.json

Made videos of 10 s are those of `benchmarks.reading.decoding`; `--clips` names a folder of more. Ways: `one`, a decoder with one
thread; `threads`, a decoder with a thread a core; `together`, a decoder with one thread a core, where the key frames divide the
work. Turns are interleaved. `divided` says whether the file was; where it was not, the last two ways are the same. All ways must
give the same frames. The machine should be idle.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from benchmarks.reading.decoding import NUM_FRAMES, Cell, write
from fewframes.core.process import num_cores
from fewframes.sampling import centre_times
from fewframes.video.decode.decoder import FileVideo
from fewframes.video.source import open_video

TURNS = 7
CELLS = tuple(Cell(codec, 10, gop, 256) for codec in ("h264", "hevc", "vp9", "av1", "mpeg4") for gop in (12, 30, 250))


def frames_of(path: Path, threads: int) -> NDArray[np.uint8]:
    with closing(open_video(path, threads=threads)) as video:
        frames: NDArray[np.uint8] = video.frames_at(centre_times(video.duration_s, NUM_FRAMES)).frames
    return frames


def undivided(path: Path) -> NDArray[np.uint8]:
    with patch.object(FileVideo, "_parts", lambda video, times_s: [times_s]):
        return frames_of(path, 0)


def is_divided(path: Path) -> bool:
    with closing(open_video(path)) as video:
        assert isinstance(video, FileVideo)
        return len(video._parts(centre_times(video.duration_s, NUM_FRAMES).tolist())) > 1


def measured(path: Path) -> tuple[bool, float, dict[str, object]]:
    """Whether a file is divided, how many times as fast that is, and all figures."""
    alone = frames_of(path, 1)
    for frames in (undivided(path), frames_of(path, 0)):
        assert np.array_equal(frames, alone), path
    ways = {
        "one": partial(frames_of, path, 1),
        "threads": partial(undivided, path),
        "together": partial(frames_of, path, 0),
    }
    seconds = interleaved(ways, TURNS, time.perf_counter)
    divided, gains = is_divided(path), ratios(seconds["threads"], seconds["together"])
    return (
        divided,
        statistics.median(gains),
        {
            "divided": divided,
            "ms": {way: round(1e3 * statistics.median(seconds[way]), 1) for way in ways},
            "times as fast as with threads": least_median_most(gains),
            "times as fast as one": least_median_most(ratios(seconds["one"], seconds["together"])),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="where made videos are kept")
    parser.add_argument("--clips", type=Path, help="a folder of further videos")
    options = parser.parse_args()
    options.videos.mkdir(parents=True, exist_ok=True)
    files = {cell.name: write(options.videos, cell) for cell in CELLS}
    files |= {path.name: path for path in sorted(options.clips.iterdir())} if options.clips else {}
    results = {name: measured(path) for name, path in files.items()}
    gains = [gain for divided, gain, _ in results.values() if divided]
    write_result(
        turns=TURNS,
        decoders=num_cores(),
        divided_files=len(gains),
        times_as_fast_as_with_threads_over_divided_files=least_median_most(gains),
        files={name: figures for name, (*_, figures) in results.items()},
    )


if __name__ == "__main__":
    main()
