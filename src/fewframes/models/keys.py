"""Keys of the weights of networks, under which what they computed is cached."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def module_key(module: nn.Module) -> str:
    """Return a key of the weights of a module and of their precision. In float32 it is `core.cache.arrays_key` of the arrays."""
    digest = hashlib.blake2b(digest_size=20)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    """Return the numbers of a tensor as bytes, in the order of its axes."""
    # The tensor is flattened first, because a channels-last tensor with axes of length 1 counts as contiguous with any stride.
    return tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()
