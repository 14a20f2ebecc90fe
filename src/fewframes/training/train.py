"""Train a model on labelled videos, evaluate it on held-out ones, and write it with a record of how it was made.

With a frozen frame encoder each video is embedded once, and the temporal encoder and the head learn from cached embeddings. If the
frame encoder learns, videos are decoded and augmented anew each time. A run has three parts (`run/prepare.py`, `run/fit.py`,
`run/finish.py`), and the loop of steps (`steps/loop.py`) is the same for both.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fewframes.core.cache import EmbeddingCache
from fewframes.core.settings import Task
from fewframes.data.dataset import VideoSet, hold_out
from fewframes.data.scenes.groups import with_scenes
from fewframes.errors import ConfigError
from fewframes.models.files.hub import load_checkpoint
from fewframes.runtime.protocol import DtypeName
from fewframes.training.background import find_run_footage
from fewframes.training.config import DEFAULT_RUN, RunConfig
from fewframes.training.processes import start_processes
from fewframes.training.ranks import ProcessRank
from fewframes.training.run.calibrate import calibrate
from fewframes.training.run.context import RunContext
from fewframes.training.run.finish import TrainingResult, finish
from fewframes.training.run.fit import fit_run
from fewframes.training.run.folder import RunFolder
from fewframes.training.run.prepare import check_settings, prepare
from fewframes.training.run.start import check_start, start_run, warnings_of_known
from fewframes.training.run.videos import Progress, RunVideos

log = logging.getLogger("fewframes")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options that do not change the result of a run: the cache of embeddings (None: only for the time of the run), the device,
    the precision of the frame encoder, and the command line for the record. `overwrite` replaces a run in the output folder,
    `resume` continues an interrupted one."""

    cache: EmbeddingCache | None = None
    device: str = "auto"
    dtype: DtypeName = "auto"
    overwrite: bool = False
    resume: bool = False
    command: str = ""


DEFAULT_OPTIONS = TrainOptions()


def train(
    data: VideoSet,
    output: str | Path,
    run: RunConfig = DEFAULT_RUN,
    options: TrainOptions = DEFAULT_OPTIONS,
    progress: Progress = lambda stage, done, total, words: None,
) -> TrainingResult:
    """Train a model on the actions of `data`, and write it with its figures to a folder.

    Args:
        output: The folder, which is made if needed.
        run: Settings of the run.
        options: The cache, the device, and if a run in the folder is replaced or continued.
        progress: Called with the stage, the number done, the number in all, and a line of text.

    Raises DataError, ConfigError or WeightsError before anything is written.
    """
    if run.train.head == "solved":
        raise ConfigError("train.head = 'solved' is not trained in steps; call fewframes.train_solved")
    # What is missing is said now, not after minutes of work.
    check_start(run)
    teacher = load_checkpoint(run.train.teacher) if run.train.teacher else None
    data = with_scenes(data, run.data, run.data.holdout, lambda stage, done, total: progress(stage, done, total, ""))
    data, background = data.split_background()
    folder = RunFolder(Path(output), run, data, options.command)
    folder.check(overwrite=options.overwrite, resume=options.resume)
    training, held = hold_out(data, run.data.holdout, run.train.seed)
    footage = find_run_footage(run.data, data.subset(training).samples, data.samples)
    with ExitStack() as until_done:
        accelerator = start_processes(options.device, run.train, folder.logs)
        until_done.callback(accelerator.end_training)
        process = ProcessRank(accelerator.process_index, accelerator.num_processes)
        if accelerator.is_main_process:
            until_done.enter_context(folder.held())
            until_done.callback(folder.close)
        else:
            progress = lambda stage, done, total, words: None  # noqa: E731
        cache = options.cache or EmbeddingCache(until_done.enter_context(_shared_folder(process)))
        videos = RunVideos(data, training, held, run, cache, process, progress, background)
        torch.manual_seed(run.train.seed)
        task: Task = "multilabel" if data.multilabel else "single"
        start = start_run(run, num_classes=len(data.labels), task=task)
        check_settings(run, start.model, videos, footage)
        if accelerator.is_main_process:
            for words in warnings_of_known(start.started_from, videos.training.samples, videos.reporting.samples):
                log.warning(words)
        context = RunContext(
            run=run,
            videos=videos,
            folder=folder,
            accelerator=accelerator,
            view=start.view,
            footage=footage,
            device=options.device,
            dtype=options.dtype,
            progress=progress,
        )
        began = time.perf_counter()
        prepared = prepare(context, start, teacher)
        embedding_s = time.perf_counter() - began
        fitted = fit_run(prepared, resume=options.resume)
        return finish(prepared, fitted, calibrate(prepared, fitted), embedding_s)


@contextmanager
def _shared_folder(process: ProcessRank) -> Iterator[Path]:
    """Yield a temporary folder that all processes of this machine share; it is deleted when the block ends."""
    with tempfile.TemporaryDirectory(prefix="fewframes-") as own:
        first, *_ = process.gather([own])
        yield Path(first) if Path(first).is_dir() else Path(own)
        process.gather([own])  # wait for the others: the first process deletes the folder that they use
