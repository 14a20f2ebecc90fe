"""`--engine`: write the answers about many videos into a folder of Parquet files, computed here or by Ray."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, describe, tell
from fewframes.cli.options import LARGE_RUNS, named_videos
from fewframes.core.text import count_of
from fewframes.errors import EXIT_SOME_FAILED, ConfigError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.batch.rows import VideoJob
    from fewframes.batch.timelines import TimelineJob

Engine = Literal["local", "ray"]
EngineOption = Annotated[
    Engine | None,
    typer.Option(
        help="Write a folder of Parquet files with exactly one row per input, and continue it after an interruption. local "
        "computes in this process, ray on many processes or machines.",
        rich_help_panel=LARGE_RUNS,
    ),
]
ShardRowsOption = Annotated[
    int,
    typer.Option("--shard-rows", min=1, help="Inputs in each file of --engine.", rich_help_panel=LARGE_RUNS),
]
RayWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes of --engine ray.",
        show_default="one per core, or per GPU",
        rich_help_panel=LARGE_RUNS,
    ),
]


def check_workers(engine: Engine | None, workers: int | None) -> None:
    """Raise BadParameter for a number of workers without Ray, which nothing would read."""
    if engine != "ray" and workers is not None:
        raise typer.BadParameter("--workers is an option of --engine ray; leave it out, or add --engine ray")


def write_folder(
    job: VideoJob | TimelineJob, sources: list[str], output: str, engine: Engine, shard_rows: int, doing: str
) -> None:
    """Compute the rows that are not in the folder yet, as `fill_folder` does, and end the command with code 3 if a video failed."""
    if fill_folder(job, sources, output, engine, shard_rows, doing):
        raise typer.Exit(EXIT_SOME_FAILED)


def fill_folder(
    job: VideoJob | TimelineJob, sources: list[str], output: str, engine: Engine, shard_rows: int, doing: str
) -> int:
    """Compute the rows that are not in the folder yet, and print a tally of the whole folder. Return how many videos failed.

    Args:
        job: The model and its settings.
        sources: Sources as they stand on the command line.
        output: Folder or URL of the Parquet files.
        engine: The engine that computes: `local` or `ray`.
        shard_rows: Inputs in each file.
        doing: The word for the work in the progress bar.

    Raises ConfigError for a list that does not exist.
    """
    from fewframes.batch.output import begin, count, cut, remaining, run_here
    from fewframes.batch.ray import check_ray, run_on_ray
    from fewframes.core.files import check_format
    from fewframes.data.samples import absolute

    check_format("parquet")
    if engine == "ray":
        check_ray()
    paths = [absolute(path) for path in named_videos(sources)]
    if missing := [path for path in paths if path.endswith(".txt")]:  # `named_videos` has opened every list that exists
        raise ConfigError(f"{missing[0]}: no such list of videos; check the path")
    here: VideoJob | TimelineJob = replace(job, device="cpu") if engine == "ray" else job
    work = here.start()
    shards = cut(paths, shard_rows)
    folder = begin(absolute(output), work.about, shards)
    left = remaining(folder, shards)
    num_left = sum(len(shard.sources) for shard in left)
    tell(describe(work.predictor) if engine == "local" else f"{job.model} on Ray")
    videos, files = count_of(len(paths), "video"), count_of(len(shards), "file")
    tell(f"{videos} in {files}, {len(shards) - len(left)} of them done before; {output}")
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
        tell(f"{output}: finished files are kept; the same command computes the others")
        raise
    seconds = time.perf_counter() - began
    tally = count(folder, shards)
    for error in tally.errors:
        tell(f"failed: {error}")
    if tally.num_failed > len(tally.errors):
        tell(f"... and {tally.num_failed - len(tally.errors)} more, all in the column error")
    tell(
        f"{count_of(tally.num_rows, 'row')} in {count_of(tally.num_shards, 'file')}, {tally.num_failed} of videos that failed; "
        f"{num_left} new in {seconds:.1f} s; {output}"
    )
    return tally.num_failed
