"""Load a video classifier of transformers, and run it in two halves: frames to clip embeddings, and these to logits.

No code from a model's folder is run, and no pickle is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from fewframes.core.settings import Task
from fewframes.errors import WeightsError, needed
from fewframes.models.devices import float32_products
from fewframes.models.files.model_file import one_line
from fewframes.models.video_classifiers.folder import CONFIG, EXTRA, classifier_folder, licence_of
from fewframes.models.video_classifiers.view import view_of

LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)
"""The errors that transformers raises for files that are damaged, of another kind, or that want to bring their own code."""


class VideoClassifier:
    """A video classifier of transformers with its labels and its view, in float32 on the CPU until it is moved."""

    kind = "transformers"

    def __init__(self, name: str) -> None:
        """Load a model.

        Args:
            name: `hf:` and a folder or a name of the hub, as `classifier_folder` takes it.

        Raises:
            WeightsError: The model cannot be found or read, or is no video classifier.
            MissingDependency: transformers is not installed.
        """
        transformers = needed("transformers", EXTRA, f"{name} needs transformers, which is not installed")
        self.name, self.folder = name, classifier_folder(name)
        self.licence = licence_of(self.folder)
        with _quiet(transformers):
            self.config = _config(transformers, self.folder, name)
            self.network = _network(transformers, self.folder, name)
            self.view = view_of(_processor(transformers, self.folder, name), name)
        self.num_frames = _num_frames(self.config, name)
        _check_size(self.config, self.view.crop_px, name)
        head = getattr(self.network, "classifier", None)
        if not isinstance(head, nn.Linear):
            raise WeightsError(
                f"{name}: {type(self.network).__name__} does not end in one linear layer; it cannot be run here"
            )
        self.head = head
        self.labels = _labels(self.config, head.out_features, name)
        kinds: dict[str, Task] = {"multi_label_classification": "multilabel"}
        self.task: Task = kinds.get(str(getattr(self.config, "problem_type", None)), "single")
        self.width = head.in_features
        self.architecture = type(self.network).__name__
        self.files = (self.folder / CONFIG, *sorted(self.folder.glob("model*.safetensors")))
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (self.view.mean, self.view.std))

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the network to a device. All but the last layer computes in this precision."""
        self.network.classifier = nn.Identity()
        self.network.to(device, dtype)
        self.head.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        self.device, self.dtype = device, dtype

    def embed(self, frames_BTCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return clip embeddings, the input of the last layer: (B, T, C, H, W) uint8 -> (B, D). Each clip runs by itself.

        `to` must have been called.
        """
        rows = []
        with torch.inference_mode(), float32_products(self.device, tf32=False):
            for clip_TCHW in frames_BTCHW:
                pixels_TCHW = torch.from_numpy(np.ascontiguousarray(clip_TCHW)).to(self.device).float() / 255
                pixels_1TCHW = ((pixels_TCHW - self._mean) / self._std).to(self.dtype)[None]
                rows.append(
                    self.network(pixels_1TCHW).logits.float().reshape(1, self.width).cpu()
                )  # VideoPrism's has an axis more
        return torch.cat(rows).numpy()

    def classify(self, embeddings_BD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits (B, K) of clip embeddings (B, D)."""
        with torch.inference_mode(), float32_products(self.device, tf32=False):
            logits_BK = self.head(torch.from_numpy(np.array(embeddings_BD)).to(self.device))
        return logits_BK.cpu().numpy()


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Run the block without transformers' bars and notes; what matters in them is checked."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _config(transformers: Any, folder: Path, name: str) -> Any:
    """Return the config of a model. Raises WeightsError if it is not that of a video classifier."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except LOADING_ERRORS as error:
        raise WeightsError(
            f"{name}: transformers {transformers.__version__} cannot read its config.json ({one_line(error)}); a newer "
            "transformers may know this kind of model"
        ) from None
    if type(config) not in transformers.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING:
        known = sorted(kind.model_type for kind in transformers.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING)
        raise WeightsError(
            f"{name}: {config.model_type} is no video classifier of transformers {transformers.__version__}, which has "
            f"{', '.join(known)}"
        )
    return config


def _network(transformers: Any, folder: Path, name: str) -> Any:
    """Return the network in eval mode and float32. Raises WeightsError if a weight is missing or of another shape."""
    try:
        network, info = transformers.AutoModelForVideoClassification.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except LOADING_ERRORS as error:
        raise WeightsError(f"{name}: its weights cannot be loaded ({one_line(error)}); take another copy") from None
    # transformers fills these with random numbers and goes on.
    lacking = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    if lacking:
        raise WeightsError(
            f"{name}: its weights lack {len(lacking)} of the network's, such as {lacking[0]}; take a model that was trained to "
            "classify videos"
        )
    return network.float().eval()


def _processor(transformers: Any, folder: Path, name: str) -> Any:
    """Return the model's video processor, or the image processor that older versions of transformers have for it."""
    kinds = [getattr(transformers, kind, None) for kind in ("AutoVideoProcessor", "AutoImageProcessor")]
    reasons = []
    for kind in filter(None, kinds):
        try:
            return kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except LOADING_ERRORS as error:
            reasons.append(one_line(error))
    raise WeightsError(f"{name}: its preprocessor_config.json cannot be read ({reasons[0]}); take another copy")


def _num_frames(config: Any, name: str) -> int:
    """Return the number of frames of a clip. Raises WeightsError if the config does not tell it."""
    found = next((getattr(config, key) for key in ("num_frames", "frames_per_clip") if hasattr(config, key)), None)
    if not isinstance(found, int) or found < 1:
        raise WeightsError(f"{name}: its config.json does not tell its number of frames ({found})")
    return found


def _check_size(config: Any, side: int, name: str) -> None:
    """Raise WeightsError if the processor makes frames of another size than the network was built for."""
    found = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    sides = set(found) if isinstance(found, list | tuple) else {found}
    if sides != {side}:
        raise WeightsError(
            f"{name}: its processor makes frames of {side} px, and its network takes {found}; take another copy"
        )


def _labels(config: Any, count: int, name: str) -> tuple[str, ...]:
    """Return the names of the K actions. Raises WeightsError unless there are as many as outputs, all different."""
    names = config.id2label
    labels = tuple(str(names[index]).strip() for index in range(count) if index in names)
    if len(labels) != len(names) or len(labels) != count or len(set(labels)) != count or "" in labels:
        raise WeightsError(
            f"{name}: its id2label names {len(set(names.values()))} actions, and its last layer has {count}"
        )
    return labels
