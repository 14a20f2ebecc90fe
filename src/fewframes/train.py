"""The loop: labelled videos -> a trained model, its figures on held-out videos, and how they came about.

The frame encoder is frozen: each video is embedded once and kept in the cache; the temporal encoder and the head learn from
the embeddings.
"""

from __future__ import annotations

import copy
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import av
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewframes import __version__
from fewframes.cache import EmbeddingCache
from fewframes.config import RunConfig, TrainConfig, run_to_toml
from fewframes.data import VideoSet, hold_out
from fewframes.embed import Embedded, embed_videos
from fewframes.errors import ConfigError, DataError
from fewframes.metrics import MultiLabelReport, Report, report_of
from fewframes.model import STAM
from fewframes.optim import parameter_groups, warmup_cosine
from fewframes.plots import confusion_png
from fewframes.predictor import DtypeName, Failure, Predictor
from fewframes.weights import MODEL_FILE, Checkpoint, save_checkpoint, start_run

RUN_FILE, METRICS_FILE, HISTORY_FILE, CONFUSION_FILE = "run.toml", "metrics.json", "history.csv", "confusion.png"
OUTPUT_FILES = (RUN_FILE, HISTORY_FILE, METRICS_FILE, CONFUSION_FILE, MODEL_FILE)
"""What a run writes; the model last, so that a folder with a model is complete."""
Stage = Literal["embedding", "training"]
Progress = Callable[[Stage, int, int], None]
"""Called with the stage, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Trained:
    """What came out of a run: the model; its figures on held-out videos (None when none were held out, or none of these could
    be read), their logits (N, K), and how many were held out; videos that could not be read; how many came from the cache;
    and where the seconds went."""

    checkpoint: Checkpoint
    report: Report | MultiLabelReport | None
    held_out_logits: Tensor
    num_held_out: int
    failures: tuple[Failure, ...]
    num_cached: int
    embedding_s: float
    training_s: float


def train(
    data: VideoSet,
    output: Path,
    run: RunConfig,
    *,
    cache: EmbeddingCache | None,
    device: str = "auto",
    dtype: DtypeName = "auto",
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Trained:
    """Teach a model the actions of `data` and write it, with its figures, to the folder `output`.

    Raises DataError, ConfigError or WeightsError before anything is written.
    """
    _check_output(output, overwrite)
    training, held = hold_out(data, run.data.holdout, run.train.seed)
    torch.manual_seed(run.train.seed)
    model, view, licences = start_run(
        run, num_classes=len(data.labels), task="multilabel" if data.multilabel else "single"
    )
    if model.config.layout != "factorised":
        raise ConfigError(
            f"layout {model.config.layout!r} has no embeddings of single frames to train on; take 'factorised'"
        )
    began = time.perf_counter()
    embedder = Predictor(Checkpoint(copy.deepcopy(model), view, data.labels), device=device, dtype=dtype)
    embedded = _embed(data, embedder, cache, run.data.mirror, progress)
    embedding_s = time.perf_counter() - began
    seen, unseen = _rows_of(embedded, training), _rows_of(embedded, held)
    targets_BK = data.multi_hot()[embedded.places]
    _check_classes(data, targets_BK[seen], embedded.failures)

    began = time.perf_counter()
    history = []
    for step in fit(model, embedded.embeddings[seen], targets_BK[seen], run.train):
        history.append(step)
        progress("training", step.number, step.num_steps)
    training_s = time.perf_counter() - began
    logits_NK = logits_of(model, embedded.embeddings[unseen])
    report = report_of(model.config.task, logits_NK, targets_BK[unseen], data.labels) if len(unseen) else None
    provenance = {
        "data": data.name,
        "data_fingerprint": data.fingerprint(),
        "num_videos": {"training": len(seen), "held_out": len(unseen), "failed": len(embedded.failures)},
        "run": asdict(run),
        "frame_encoder_precision": str(embedder.dtype).removeprefix("torch."),
        "versions": {"fewframes": __version__, "torch": torch.__version__, "av": av.__version__},
    }
    metrics = {"protocol": f"held-out videos of {data.name}", **report.to_dict()} if report is not None else {}
    checkpoint = Checkpoint(model.eval(), view, data.labels, provenance, metrics, licences)
    trained = Trained(
        checkpoint, report, logits_NK, len(held), embedded.failures, embedded.num_cached, embedding_s, training_s
    )
    _write(trained, history, output, run)
    return trained


def share_right(model: STAM, logits_BK: Tensor, targets_BK: Tensor) -> float:
    """How many videos got their action; for multi-label models, how many of the answers yes and no were right."""
    if model.config.task == "multilabel":
        return float(((logits_BK > 0) == (targets_BK > 0.5)).float().mean())
    return float((logits_BK.argmax(dim=1) == targets_BK.argmax(dim=1)).float().mean())


def logits_of(model: STAM, embeddings_BVTD: Tensor) -> Tensor:
    """Logits (B, K) of the videos as they are (the first view)."""
    with torch.inference_mode():
        return model.eval().encode_video(embeddings_BVTD[:, 0]).logits


@dataclass(frozen=True)
class Step:
    """One step of training: its number from 1, all there are, learning rate, loss, and share of the batch that was right
    (of its labels, where a video has any number)."""

    number: int
    num_steps: int
    learning_rate: float
    loss: float
    accuracy: float


def fit(model: STAM, embeddings_BVTD: Tensor, targets_BK: Tensor, config: TrainConfig) -> Iterator[Step]:
    """Train the temporal encoder and the head of `model` on frame embeddings, V views of each video; yields each step.

    Targets (B, K) are in 0-1. The frame encoder is not touched.

    Each step draws `batch_size` videos without repeats within an epoch, and one view of
    each. The same seed gives the same weights on the same machine.
    """
    generator = torch.Generator().manual_seed(config.seed)
    encoder = model.temporal_encoder
    if encoder.motion is not None:
        encoder.motion.fit(embeddings_BVTD.flatten(0, 1), generator)
    if model.moment_head is not None:
        model.moment_head.fit(embeddings_BVTD, targets_BK, model.loss, generator)
    with torch.no_grad():
        tokens_BVTW = torch.stack([encoder.tokens(view_BTD) for view_BTD in embeddings_BVTD.unbind(1)], dim=1)
    trained = nn.ModuleList([encoder, model.head])
    optimiser = torch.optim.AdamW(
        parameter_groups(trained, config.learning_rate, config.weight_decay), betas=(0.9, 0.98), fused=True
    )
    num_videos, num_views = tokens_BVTW.shape[:2]
    batch_size = min(config.batch_size, num_videos)
    num_steps = max(config.min_steps, config.epochs * -(-num_videos // batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: warmup_cosine(step, num_steps, round(config.warmup_share * num_steps))
    )
    order_B = torch.empty(0, dtype=torch.long)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # dropout draws from the global generator
        for number in range(1, num_steps + 1):
            if len(order_B) < batch_size:
                order_B = torch.cat([order_B, torch.randperm(num_videos, generator=generator)])
            chosen_B, order_B = order_B[:batch_size], order_B[batch_size:]
            views_B = torch.randint(num_views, (batch_size,), generator=generator)
            embedding_BD, _ = encoder.attend(tokens_BVTW[chosen_B, views_B])
            logits_BK = model.head(embedding_BD)
            loss = model.loss(logits_BK, targets_BK[chosen_B], config.label_smoothing)
            if not loss.isfinite():
                raise ConfigError(
                    f"training diverged: the loss is {loss.item()} at step {number} of {num_steps} with learning_rate "
                    f"{config.learning_rate:g}; lower it"
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), config.max_grad_norm)
            learning_rate = schedule.get_last_lr()[0]
            optimiser.step()
            schedule.step()
            yield Step(
                number,
                num_steps,
                float(learning_rate),
                loss.item(),
                share_right(model, logits_BK, targets_BK[chosen_B]),
            )
    model.eval()


def _check_output(output: Path, overwrite: bool) -> None:
    """Before minutes of work, not after."""
    there = [name for name in OUTPUT_FILES if (output / name).exists()]
    if there and not overwrite:
        raise ConfigError(f"{output}: holds {', '.join(there)} already; take another folder, or --overwrite")
    output = output.resolve()
    nearest_folder = next(folder for folder in (output, *output.parents) if folder.exists())
    if not nearest_folder.is_dir() or not os.access(nearest_folder, os.W_OK):
        raise ConfigError(f"{output}: {nearest_folder} is not a folder that can be written to; take another")


def _embed(
    data: VideoSet, embedder: Predictor, cache: EmbeddingCache | None, mirror: bool, progress: Progress
) -> Embedded:
    for result in embed_videos(data, embedder, cache, mirror=mirror):
        if isinstance(result, Embedded):
            return result
        progress("embedding", result, len(data.samples))
    raise AssertionError("embed_videos ends with its result")


def _rows_of(embedded: Embedded, places: list[int]) -> Tensor:
    """The rows of the embeddings that stand for these places in the data."""
    return torch.isin(embedded.places, torch.tensor(places, dtype=torch.long)).nonzero().squeeze(1)


def _check_classes(data: VideoSet, targets_BK: Tensor, failures: tuple[Failure, ...]) -> None:
    """What could not be read may leave an action without a video to learn from."""
    absent = (targets_BK.sum(dim=0) == 0).nonzero().flatten().tolist()
    if absent:
        names = ", ".join(data.labels[index] for index in absent)
        raise DataError(
            f"{data.name}: no training video of {names} could be read; {len(failures)} failed, the first: {failures[0].error}"
        )


def _write(trained: Trained, history: list[Step], output: Path, run: RunConfig) -> None:
    """All files beside the output first, then moved into it: an interruption leaves the old ones or the new ones."""
    output.mkdir(parents=True, exist_ok=True)
    metrics = {
        **trained.checkpoint.provenance,
        "failed": [failure.to_dict() for failure in trained.failures],
        "seconds": {"embedding": round(trained.embedding_s, 2), "training": round(trained.training_s, 2)},
        "num_cached": trained.num_cached,
        "held_out": trained.report.to_dict() if trained.report is not None else None,
    }
    try:
        with tempfile.TemporaryDirectory(dir=output, prefix=".part-") as folder:
            part = Path(folder)
            (part / RUN_FILE).write_text(run_to_toml(run), encoding="utf-8", errors="surrogateescape")
            (part / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
            _write_history(history, part / HISTORY_FILE)
            if isinstance(trained.report, Report):
                title = f"{trained.report.num_videos} held-out videos, top-1 {trained.report.top1:.1%}"
                (part / CONFUSION_FILE).write_bytes(confusion_png(trained.report, title))
            save_checkpoint(part / MODEL_FILE, trained.checkpoint)
            for name in OUTPUT_FILES:
                if (part / name).exists():
                    (part / name).replace(output / name)
                else:
                    (output / name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{output}: the model cannot be written ({error}); make room or take another folder"
        ) from None


def _write_history(history: list[Step], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["number", "num_steps", "learning_rate", "loss", "accuracy"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(step) for step in history)
