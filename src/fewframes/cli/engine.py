"""`--engine`: a command's videos as a folder of Parquet files, computed here or by Ray. A part of the command line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, describe, tell
from fewframes.cli.options import named_videos
from fewframes.errors import EXIT_SOME_FAILED, ConfigError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.batch.rows import VideoJob

Engine = Literal["local", "ray"]
EngineOption = Annotated[
    Engine | None,
    typer.Option(help="Who computes a folder of Parquet files, exactly one row for each input: this process, or Ray."),
]
ShardRowsOption = Annotated[int, typer.Option("--shard-rows", min=1, help="Inputs in each file of such a folder.")]


def write_folder(job: VideoJob, sources: list[str], place: str, engine: Engine, shard_rows: int, doing: str) -> None:
    """Compute what is not in the folder yet, and say what is in it in the end."""
    from fewframes.batch.output import begin, count, cut, remaining, run_here
    from fewframes.batch.ray import check_ray, run_on_ray
    from fewframes.core.files import check_format
    from fewframes.data.lists import absolute

    check_format("parquet")
    if engine == "ray":
        check_ray()
    paths = [absolute(path) for path in named_videos(sources)]
    if missing := [path for path in paths if path.endswith(".txt")]:  # lists that are there were opened
        raise ConfigError(f"{missing[0]}: no such list of videos; check the path")
    work = (replace(job, device="cpu") if engine == "ray" else job).start()
    shards = cut(paths, shard_rows)
    folder = begin(absolute(place), work.about, shards)
    left = remaining(folder, shards)
    num_left = sum(len(shard.sources) for shard in left)
    tell(describe(work.predictor) if engine == "local" else f"{job.model} on Ray")
    tell(f"{len(paths)} videos in {len(shards)} files, {len(shards) - len(left)} of them done before; {place}")
    began, done = time.perf_counter(), 0
    results = (
        run_here(folder, work, left)
        if engine == "local"
        else run_on_ray(folder, replace(job, workers=None), work, left, workers=job.workers)
    )
    try:
        with StageProgress() as progress:
            for num_rows in results:
                done += num_rows
                progress.show(doing, done, num_left)
    except KeyboardInterrupt:
        tell(f"{place}: finished files stay; the same command does the others")
        raise
    seconds = time.perf_counter() - began
    tally = count(folder, shards)
    for error in tally.errors:
        tell(f"failed: {error}")
    if tally.num_failed > len(tally.errors):
        tell(f"... and {tally.num_failed - len(tally.errors)} more, all in the column error")
    tell(
        f"{tally.num_rows} rows in {tally.num_shards} files, {tally.num_failed} of videos that failed; "
        f"{num_left} new in {seconds:.1f} s; {place}"
    )
    if tally.num_failed:
        raise typer.Exit(EXIT_SOME_FAILED)
