"""`fewframes embed`: write embeddings of videos and frames to a file for other tools."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fewframes.cli.console import describe, tell, tell_failures, with_progress
from fewframes.cli.engine import EngineOption, ShardRowsOption, write_folder
from fewframes.cli.options import (
    OUTPUT,
    BackendOption,
    DeviceOption,
    DtypeOption,
    EndOption,
    FramesOption,
    MergeOption,
    ModelOption,
    RuntimeOption,
    SourcesArgument,
    StartOption,
    ToleranceOption,
    WorkersOption,
    make_folder,
    named_videos,
)
from fewframes.core.files import check_not_read
from fewframes.errors import EXIT_SOME_FAILED


def embed(
    sources: SourcesArgument,
    *,
    frames: FramesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    model: ModelOption = "lite0-16",
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .parquet or .safetensors. With --engine a folder.",
            rich_help_panel=OUTPUT,
        ),
    ],
    per_frame: Annotated[
        bool, typer.Option("--per-frame", help="Write an embedding of each frame, too.", rich_help_panel=OUTPUT)
    ] = False,
    tolerance: ToleranceOption = 0.0,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
    workers: WorkersOption = None,
    engine: EngineOption = None,
    shard_rows: ShardRowsOption = 1000,
) -> None:
    """Write an embedding of each video, for other tools to search, group or train with.

    The file has a row for each video: source, label, score, times and embedding.
    Parquet files have the failed videos too, with their reason.

    Exit codes: 0 all embedded, 1 none could be read, 2 wrong use, 3 some of many failed, 4 Parquet without pyarrow.
    """
    from fewframes.batch.embeddings import check_embedding_file, write_embeddings
    from fewframes.inference.predictor import load
    from fewframes.results import tally

    if engine is not None:
        if runtime != "auto":
            raise typer.BadParameter("--engine takes the runtime that suits each machine; leave out --runtime")
        from fewframes.batch.rows import VideoJob

        job = VideoJob(
            columns="embeddings", model=model, per_frame=per_frame, num_frames=frames, start_s=start, end_s=end,
            tolerance=tolerance, merge=merge, backend=backend, device=device, dtype=dtype, workers=workers,
        )  # fmt: skip
        write_folder(job, sources, output, engine, shard_rows, "embedding")
        return
    path = Path(output)
    check_embedding_file(path)
    paths = named_videos(sources)
    check_not_read(path, paths)
    make_folder(path.parent)
    predictor = load(model, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime)
    tell(describe(predictor))
    began = time.perf_counter()
    results = predictor.predict_many(
        paths, num_frames=frames, start_s=start, end_s=end, tolerance=tolerance, workers=workers
    )
    written = write_embeddings(with_progress(results, len(paths), "embedding"), path, predictor, per_frame=per_frame)
    tell_failures(written.failures)
    tell(f"{tally(written.num_videos, 'embedded', written.failures)} in {time.perf_counter() - began:.1f} s; {output}")
    if written.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
