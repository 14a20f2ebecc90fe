"""`fewframes embed`: write embeddings of videos and frames to a file for other tools."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import StageProgress, describe, tell, tell_failures, with_progress
from fewframes.cli.engine import EngineOption, ShardRowsOption, write_folder
from fewframes.cli.options import (
    OUTPUT,
    BackendOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    EndOption,
    FramesOption,
    MergeOption,
    ModelOption,
    NoCacheOption,
    RuntimeOption,
    SourcesArgument,
    StartOption,
    StillOption,
    ToleranceOption,
    WorkersOption,
    embedding_cache,
    make_folder,
    named_videos,
)
from fewframes.core.files import check_not_read, writing
from fewframes.core.storage import is_address
from fewframes.core.text import count_of
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, FewframesError

if TYPE_CHECKING:  # the command line must not load a model before a command needs it
    from fewframes.core.cache import EmbeddingCache
    from fewframes.inference.predictor import Predictor


def embed(
    sources: SourcesArgument,
    *,
    frames: FramesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    model: ModelOption = "lite0-16",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .parquet or .safetensors. With --engine a folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    frames_store: Annotated[
        Path | None,
        typer.Option(
            help="Write a small file of each video's frames, film.frames, to this folder instead; timeline and index take "
            "it in place of the video.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Frames a second of --frames-store. [default: 4]", rich_help_panel=OUTPUT),
    ] = None,
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
    still: StillOption = 0.0,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    engine: EngineOption = None,
    shard_rows: ShardRowsOption = 1000,
) -> None:
    """Write an embedding of each video, for other tools to search, group or train with.

    The file has a row for each video: source, label, score, times and embedding.
    Parquet files have the failed videos too, with their reason.
    With --frames-store each video becomes a small file of its own, which `timeline` and `index` read in its place.

    Exit codes: 0 all embedded, 1 none could be read, 2 wrong use, 3 some of many failed, 4 Parquet without pyarrow.
    """
    from fewframes.batch.embeddings import check_embedding_file, write_embeddings
    from fewframes.inference.predictor import load
    from fewframes.results import tally

    if frames_store is not None:
        check_store_options(
            output=output is not None, per_frame=per_frame, engine=engine is not None, frames=frames is not None,
            part=start > 0 or end is not None, tolerance=tolerance > 0,
        )  # fmt: skip
        predictor = load(model, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime)
        store = embedding_cache(cache, unused=no_cache)
        write_stores(predictor, named_videos(sources), frames_store, rate, still, store)
        return
    if output is None:
        raise typer.BadParameter("name a file with --output, or a folder with --frames-store")
    if rate is not None or still or cache is not None or no_cache:
        raise typer.BadParameter("--rate, --still, --cache and --no-cache belong to --frames-store")
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


def check_store_options(
    *, output: bool, per_frame: bool, engine: bool, frames: bool, part: bool, tolerance: bool
) -> None:
    """Raise BadParameter for options that do not go with --frames-store; each is True if it was given."""
    given = {
        "--output": output,
        "--per-frame": per_frame,
        "--engine": engine,
        "--frames": frames,
        "--start and --end": part,
        "--tolerance": tolerance,
    }
    if unfit := [option for option, is_given in given.items() if is_given]:
        raise typer.BadParameter(
            f"{', '.join(unfit)} and --frames-store exclude each other: a store has the frames of the whole video at a steady rate"
        )


def write_stores(
    predictor: Predictor,
    paths: Sequence[str],
    folder: Path,
    rate: float | None,
    still: float,
    cache: EmbeddingCache | None,
) -> None:
    """Write the frame store of each video below a folder. Those that are there already and still hold are left as they are."""
    from fewframes.inference.frame_store.write import RATE, check_can_store, is_current, write_frame_store
    from fewframes.results import Failure, tally

    rate = RATE if rate is None else rate
    check_can_store(predictor, rate, still)
    files = store_files(paths, folder)
    tell(describe(predictor))
    began = time.perf_counter()
    failures, num_kept, num_bytes, length_s = [], 0, 0, 0.0
    for path, file in zip(paths, files, strict=True):
        if is_current(file, predictor, path, rate, still):
            num_kept += 1
            continue
        with writing(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with StageProgress() as progress:
                written = write_frame_store(
                    predictor, path, file, rate=rate, still=still, cache=cache, progress=progress.show
                )
        except FewframesError as error:
            if len(paths) == 1:
                raise
            failures.append(Failure.of(path, error))
            continue
        num_bytes += file.stat().st_size
        length_s += written.info.duration_s
        for gap in written.info.gaps:
            tell(f"{path}: left out: {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    tell_failures(failures)
    num_written = len(paths) - num_kept - len(failures)
    kept = f", {num_kept} there already" if num_kept else ""
    size = f", {num_bytes / 1e6:.1f} MB for {count_of(round(length_s), 'second')}" if num_written else ""
    tell(f"{tally(num_written, 'stored', failures)}{kept}{size} in {time.perf_counter() - began:.1f} s; {folder}")
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def store_files(paths: Sequence[str], folder: Path) -> list[Path]:
    """Return the file of each video's frame store, below a folder as the videos lie below the folder that they share.

    Raises ConfigError for two videos with one file.
    """
    from fewframes.video.source import STORE_SUFFIX

    local = [os.path.abspath(path) for path in paths if not is_address(path)]
    root = os.path.commonpath([os.path.dirname(path) for path in local]) if local else ""
    files: dict[Path, str] = {}
    for path in paths:
        below = (
            path.rstrip("/").rpartition("/")[2] if is_address(path) else os.path.relpath(os.path.abspath(path), root)
        )
        file = (folder / below).with_suffix(STORE_SUFFIX)
        if files.setdefault(file, path) != path:
            raise ConfigError(f"{path} and {files[file]} have one store, {file}; give them other names, or two folders")
    file_of = {path: file for file, path in files.items()}
    return [file_of[path] for path in paths]
