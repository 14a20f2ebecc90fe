"""The part of a model that is trained, as one module, and how it is spread over processes."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fewframes.errors import ConfigError
from fewframes.models.backbones import TimmFrameEncoder
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.training.config import TrainConfig

FRAMES_AT_ONCE = 32
"""The most frames that go through a partly frozen frame encoder together on a CPU."""


class TrainedPart(nn.Module):
    """The part of a model that is trained, as one module from a batch's inputs to logits (B, K).

    If `embedded`, inputs are tokens (B, T, W), and the temporal encoder and the head learn. Otherwise inputs are frames
    (B, T, C, H, W) in 0-1. The moment head is fitted in closed form, not trained, and has no part in this.
    """

    def __init__(self, model: STAM, *, embedded: bool) -> None:
        super().__init__()
        self.frame_encoder = None if embedded else model.frame_encoder
        self.temporal_encoder, self.head = model.temporal_encoder, model.head
        self._model = [model]  # in a list, so that torch does not register its parts a second time

    def forward(self, inputs: Tensor) -> Tensor:
        if self.frame_encoder is not None:
            inputs = self.temporal_encoder.tokens(self._encoded(inputs))
        embedding_BD, _ = self.temporal_encoder.attend(inputs)
        return self.head(embedding_BD)

    def _encoded(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return frame embeddings (B, T, D). If only the last blocks learn, a CPU encodes few frames at a time.

        The first blocks have the largest activations, and without a gradient nobody needs them afterwards.
        """
        model = self._model[0]
        all_at_once = next(model.frame_encoder.parameters()).requires_grad or model.config.layout != "factorised"
        if all_at_once or pixels_BTCHW.device.type != "cpu":
            return model.encode_clips(pixels_BTCHW)
        parts = [model.encode_frames(part) for part in pixels_BTCHW.flatten(0, 1).split(FRAMES_AT_ONCE)]
        return torch.cat(parts).unflatten(0, pixels_BTCHW.shape[:2])

    def train(self, mode: bool = True) -> TrainedPart:
        """Switch to training mode, except for batch norms.

        These keep the statistics of their image weights: the frames of a batch are too few and too alike to estimate others.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward_parts(self) -> dict[str, nn.Parameter]:
        """Return the parameters outside the frame encoder, by name."""
        return {name: weight for name, weight in self.named_parameters() if not name.startswith("frame_encoder.")}


def spread(learner: TrainedPart, config: TrainConfig, accelerator: Accelerator) -> nn.Module:
    """Return the trained part wrapped for all processes: a copy in each (DDP), or a piece of it in each (FSDP).

    Args:
        learner: The trained part. It is compiled in place if the settings ask for that.
        config: Says if it is compiled, and if it is sharded.
        accelerator: This process among those that train together.

    Raises:
        ConfigError: There is only one process to shard over.
    """
    if config.compile:
        learner.compile()
    if not config.shard:
        wrapped: nn.Module = accelerator.prepare_model(learner)
        return wrapped
    if accelerator.num_processes == 1:
        raise ConfigError(
            "shard = true spreads a network over several processes, but there is only one; start more with torchrun"
        )
    # late: only torchrun's processes have it initialised
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for part in (learner.frame_encoder, learner.temporal_encoder):
        for block in getattr(part, "blocks", ()):
            fully_shard(block, mesh=mesh)
    fully_shard(learner, mesh=mesh)
    return learner


def use_checkpointing(frame_encoder: nn.Module, wanted: bool) -> None:
    """Switch on or off that the frame encoder's activations are recomputed in the backward pass. Raises ConfigError if it cannot
    do that."""
    if isinstance(frame_encoder, SpatialEncoder):
        frame_encoder.checkpointing = wanted
    elif isinstance(frame_encoder, TimmFrameEncoder):
        backbone: Any = frame_encoder.backbone
        backbone.set_grad_checkpointing(wanted)
    elif wanted:
        raise ConfigError(f"checkpointing works with ViT and timm encoders, not with {type(frame_encoder).__name__}")
