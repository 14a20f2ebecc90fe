"""Train a network step by step.

The videos of a step, their augmentation, dropout and mixtures all follow from the seed and the number of the step. So weights,
optimiser, average and that number are the whole state, and a run that was killed ends in the same weights, to the last bit on a
CPU. Measuring and the files of a run are left to `run/`.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict

from fewframes.errors import ConfigError
from fewframes.models.devices import float32_products
from fewframes.models.layers import pixels_of
from fewframes.models.stam import STAM
from fewframes.training.config import RunConfig
from fewframes.training.processes import as_in_first, few_threads, start_processes
from fewframes.training.steps.augment import mixed
from fewframes.training.steps.loader import ExampleOrder, TokenExamples, TrainingBatch, read_batches
from fewframes.training.steps.optim import Average, parameter_groups, unfreeze, warmup_cosine
from fewframes.training.steps.state import WHOLE, LearnedState
from fewframes.training.steps.trained_part import TrainedPart, spread, use_checkpointing
from fewframes.training.steps.training_set import TrainingSet, class_weights, solve, token_examples

ADAM_BETAS = (0.9, 0.98)
TRAINED_WEIGHT = 1 / 3
"""The weight of the trained head's logits beside those of the solved read-out, if the frame encoder is frozen. With a weight from
0.1 to 0.3 left-out groups of all three development sets were the likeliest (docs/decisions)."""


@dataclass(frozen=True)
class TrainingStep:
    """A step of training: its `number` from 1, the `num_steps` of the run, passes over the videos so far (`epoch`), and figures.

    `learning_rate` is that of the temporal encoder and the head. `accuracy` is the fraction of videos that were right (of labels,
    if a video may have any number). `waited_s` are those of the `seconds` that were spent waiting for data.
    """

    number: int
    num_steps: int
    epoch: float
    learning_rate: float
    loss: float
    accuracy: float
    num_videos: int
    seconds: float
    waited_s: float


class Trainer:
    """The state of a run between two steps: network, moving average, optimiser, and the number of steps done. A copy of `model` is
    trained; `dtype` is the precision of its forward pass."""

    def __init__(
        self,
        model: STAM,
        training_set: TrainingSet,
        run: RunConfig,
        accelerator: Accelerator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        config = self.config = run.train
        self.augment, self.accelerator, self.dtype = run.augment, accelerator, dtype
        self.training_set = training_set
        self.num_done = 0
        self.failed: dict[int, str] = {}
        self._start = model
        layout = torch.contiguous_format if config.shard else torch.channels_last  # FSDP takes no other
        model = self.model = copy.deepcopy(model).to(accelerator.device).to(memory_format=layout)
        self.learner = TrainedPart(model, embedded=isinstance(training_set.examples, TokenExamples))
        model.temporal_encoder.requires_grad_(True)
        if model.temporal_encoder.motion is not None:
            model.temporal_encoder.motion.requires_grad_(False)  # fitted, not trained
        unfreeze(model.frame_encoder, config.unfreeze)
        use_checkpointing(model.frame_encoder, config.checkpointing)
        self.parallel = spread(self.learner, config, accelerator)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.learner.forward_parts(), self.learner.frame_encoder, config),
            betas=ADAM_BETAS,
            fused=not config.shard,
        )
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=dtype == torch.float16)
        self.teacher_scores = (
            None if training_set.teacher_scores is None else training_set.teacher_scores.to(accelerator.device)
        )
        self.average = Average(self.learner, config.ema_decay) if config.ema_decay else None
        self.targets = training_set.targets.to(self.accelerator.device)
        self.weights_K = class_weights(training_set.targets).to(self.targets) if config.balance == "weights" else None
        self.order = self._order()
        self.videos_per_step = self.order.batch_size * self.order.num_processes * config.accumulate
        self.steps_per_epoch = -(-len(training_set.examples) // self.videos_per_step)
        self.num_steps = max(config.min_steps, config.epochs * self.steps_per_epoch)

    @property
    def step_gflop(self) -> float:
        """The approximate work of a step on cached embeddings: forwards, and twice that backwards. For videos it is infinite."""
        if not isinstance(self.training_set.examples, TokenExamples):
            return math.inf
        num_weights = sum(weight.numel() for weight in self.learner.parameters() if weight.requires_grad)
        num_frames, num_tokens_each = (
            self.training_set.examples.tokens_BVTW.shape[2],
            self.model.temporal_encoder.num_tokens,
        )
        num_tokens = self.order.batch_size * (1 + num_frames * num_tokens_each)
        return 6 * num_weights * num_tokens / 1e9

    def _order(self) -> ExampleOrder:
        weights: tuple[float, ...] = ()
        if self.config.balance == "sampling":
            weights = tuple((self.training_set.targets * class_weights(self.training_set.targets)).amax(dim=1).tolist())
        return ExampleOrder(
            num_examples=len(self.training_set.examples),
            batch_size=min(self.config.batch_size, len(self.training_set.examples)),
            seed=self.config.seed,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            weights=weights,
        )

    def steps(self, workers: int = 0) -> Iterator[TrainingStep]:
        """Train from where the run stands to its end. Yields each step.

        Args:
            workers: Processes that read batches ahead; 0 reads in this one.

        Raises:
            ConfigError: The loss is not finite any more.
            DataError: Not a single video of a batch could be read.
        """
        accumulate, step_gflop = self.config.accumulate, self.step_gflop
        batches = read_batches(
            self.training_set.examples,
            self.order,
            self.num_done * accumulate,
            self.num_steps * accumulate,
            workers,
            pinned=self.accelerator.device.type == "cuda",
        )
        while self.num_done < self.num_steps:
            self.learner.train()
            with few_threads(self.accelerator.device, step_gflop), self._products():
                step = self._step(list(itertools.islice(batches, accumulate)))
            self.num_done += 1
            yield step
        self.learner.eval()

    def _products(self) -> AbstractContextManager[None]:
        """Return a context that allows TF32 on a GPU, unless all is trained in float32. What is compiled keeps torch's switches:
        some of its code reads them by their older names, and those raise an error while the newer ones say otherwise."""
        if self.config.compile:
            return nullcontext()
        return float32_products(self.accelerator.device, tf32=self.dtype != torch.float32)

    def _step(self, batches: list[TrainingBatch]) -> TrainingStep:
        began = time.perf_counter()
        warmup_steps = round(self.config.warmup_share * self.num_steps)
        fraction = warmup_cosine(self.num_done, self.num_steps, warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * fraction
        self.optimiser.zero_grad()
        figures: list[Tensor] = []
        for index, batch in enumerate(batches):
            self.failed |= batch.failed
            last = index == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.parallel):
                loss, accuracy = self._loss(batch, self.num_done * len(batches) + index)
                self.scaler.scale(loss / len(batches)).backward()
            figures.append(torch.stack([loss.detach(), accuracy]))
        figures_M2 = torch.stack(figures)  # loss and accuracy of each batch
        self._check_finite(figures_M2[:, 0], batches)
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.config.max_grad_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        waited_s = sum(batch.waited_s for batch in batches)
        means = figures_M2.mean(dim=0)
        if self.accelerator.num_processes > 1:  # over all videos of the step, not over this process's alone
            means = self.accelerator.reduce(means, "mean")
        mean_loss, mean_accuracy = means.tolist()
        return TrainingStep(
            number=self.num_done + 1,
            num_steps=self.num_steps,
            epoch=(self.num_done + 1) / self.steps_per_epoch,
            learning_rate=self.config.learning_rate * fraction,
            loss=mean_loss,
            accuracy=mean_accuracy,
            num_videos=sum(len(batch.rows) for batch in batches) * self.accelerator.num_processes,
            seconds=time.perf_counter() - began + waited_s,
            waited_s=waited_s,
        )

    def _check_finite(self, losses_M: Tensor, batches: list[TrainingBatch]) -> None:
        """Raise ConfigError for the first batch of a step whose loss is no number. A GPU is waited for here, not in each batch."""
        for loss, batch in zip(losses_M.tolist(), batches, strict=True):
            if not math.isfinite(loss):
                raise ConfigError(
                    f"training diverged: the loss is {loss} at step {self.num_done + 1} of {self.num_steps} with "
                    f"learning_rate {self.config.learning_rate:g}; lower it, or look at these videos: "
                    f"{', '.join(self.training_set.names[row] for row in batch.rows.tolist())}"
                )

    def _loss(self, batch: TrainingBatch, number: int) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch, the `number`-th of the run, and the fraction of its videos that were right."""
        device, config = self.accelerator.device, self.config
        inputs, rows_B = (values.to(device, non_blocking=True) for values in (batch.inputs, batch.rows))
        inputs = pixels_of(inputs) if inputs.ndim == 5 else inputs
        wanted_BK = self.targets[rows_B]
        if self.teacher_scores is not None:  # side by side with the labels, so that mixtures mix both alike
            wanted_BK = torch.cat([wanted_BK, self.teacher_scores[rows_B]], dim=1)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(config.seed * 1_000_003 + number * self.order.num_processes + self.order.rank)
            if (self.augment.mixup or self.augment.cutmix) and len(rows_B) > 1:
                inputs, wanted_BK = mixed(inputs, wanted_BK, self.augment)
            with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits_BK = self.parallel(inputs).float()
        targets_BK, *scores = wanted_BK.split(logits_BK.shape[1], dim=1)
        loss = self.model.loss(logits_BK, targets_BK, config.label_smoothing, self.weights_K)
        for scores_BK in scores:
            # At a temperature the gradient of soft labels is smaller by its square (Hinton et al. 2015), hence the factor.
            temperature, fraction = config.teacher_temperature, config.teacher_share
            teacher_loss = temperature**2 * self.model.loss(logits_BK / temperature, scores_BK)
            loss = (1 - fraction) * loss + fraction * teacher_loss
        return loss, fraction_right(self.model, logits_BK, self.targets[rows_B])

    def trained(self) -> STAM:
        """Return a copy of the model as it is now, on the CPU, with averaged weights if the run averages them.

        Beside a solved read-out, the trained head has `TRAINED_WEIGHT`.
        """
        unchanged = (
            {} if self.learner.frame_encoder is not None else {id(self._start.frame_encoder): self._start.frame_encoder}
        )
        model = copy.deepcopy(self._start, unchanged)  # a frozen frame encoder is shared, not copied each epoch
        with nullcontext() if self.average is None else self.average.applied():
            weights = get_model_state_dict(self.learner, options=WHOLE)  # on a CPU the very tensors, not copies
            model.load_state_dict({**model.state_dict(), **weights})
        if model.moment_head is not None and self.learner.frame_encoder is None:
            with torch.no_grad():
                model.head.weight.mul_(TRAINED_WEIGHT)
                model.head.bias.mul_(TRAINED_WEIGHT)
        return as_in_first(model.eval(), self.accelerator)  # the other processes were given no weights

    def save(self, path: Path, extra: dict[str, Any]) -> None:
        """Write the state of the run to one file, all of it or nothing, with `extra` plain values, which `restore` returns.

        Every process has to call it. Raises OSError."""
        plain = {"num_done": self.num_done, "failed": self.failed, "memory": extra}
        self._state().save(path, plain, write=self.accelerator.is_main_process)

    def restore(self, path: Path) -> dict[str, Any]:
        """Continue from a saved state, and return the values stored with it. Raises ConfigError if the file is no such state."""
        stored = self._state().load(path)
        self.num_done, self.failed = stored["num_done"], stored["failed"]
        extra: dict[str, Any] = stored["memory"]
        return extra

    def _state(self) -> LearnedState:
        return LearnedState(self.learner, self.optimiser, self.scaler, self.average)


def fit(
    model: STAM,
    embeddings_BVTD: Tensor,
    targets_BK: Tensor,
    run: RunConfig,
    accelerator: Accelerator | None = None,
    groups: Sequence[str] | None = None,
) -> Iterator[TrainingStep]:
    """Train the temporal encoder and the head of `model` in place on frame embeddings, and yield each step.

    The frame encoder is not touched. The same seed gives the same weights on the same machine.

    Args:
        embeddings_BVTD: Frame embeddings of V views of each video.
        targets_BK: Targets in 0-1.
        accelerator: The process that trains; by default this one, on the CPU.
        groups: The group of each video; None makes each video its own group.
    """
    solve(model, embeddings_BVTD, targets_BK, run.train.seed, groups)
    training_set = TrainingSet(
        token_examples(model, embeddings_BVTD), targets_BK, [f"video {row}" for row in range(len(targets_BK))]
    )
    trainer = Trainer(model, training_set, run, accelerator or start_processes("cpu", run.train))
    yield from trainer.steps()
    model.load_state_dict(trainer.trained().state_dict())
    model.eval()


def fraction_right(model: STAM, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Return the fraction of videos that got their action; for multi-label models, the fraction of right yes or no answers."""
    if model.config.task == "multilabel":
        return ((logits_BK > 0) == (targets_BK > 0.5)).float().mean()
    return (logits_BK.argmax(dim=1) == targets_BK.argmax(dim=1)).float().mean()
