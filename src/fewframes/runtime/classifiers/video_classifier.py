"""The runtime for video classifiers that are not ours: whole clips of a fixed number of frames, no embeddings of single ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from fewframes.errors import ConfigError
from fewframes.models.baselines.classifier import BaselineClassifier
from fewframes.models.devices import choose_device
from fewframes.models.files.names import BASELINE_PREFIX
from fewframes.models.video_classifiers.network import VideoClassifier
from fewframes.runtime.protocol import DtypeName, Floats, Frames, WindowEncoding
from fewframes.runtime.torch_runtime import choose_dtype


class VideoClassifierRuntime:
    """A video classifier that is not ours, ready to run. It implements `Runtime`.

    It mixes frames inside its encoder. So each row of a clip's embeddings (T, D) is the embedding of the whole clip, and the
    weight of each frame is the same.
    """

    config = exits = rejection = boundaries = None
    any_num_frames = embeds_frames = causal = False
    merge, thresholds = 0, ()

    def __init__(self, name: str, *, device: str = "auto", dtype: DtypeName = "auto") -> None:
        """Load a model and put it on a device.

        Args:
            name: `hf:` and a folder or a name of the hub, or `baseline:NAME=FILE`.
            device: the name of a device of torch; `auto` takes CUDA, then Apple's MPS, then the CPU.
            dtype: the precision; `auto` is float32, so that answers are those of the model's own library.

        Raises:
            WeightsError: the model cannot be found or read.
            ConfigError: the device cannot be used, or there is no such precision or baseline.
            MissingDependency: a package that it needs is not installed.
        """
        chosen = choose_device(device)
        self.classifier = found = classifier_of(name)
        self.kind = found.kind
        found.to(chosen, choose_dtype("float32" if dtype == "auto" else dtype, chosen))
        self.name, self.labels, self.view, self.task = name, found.labels, found.view, found.task
        self.num_frames = self.least_frames = found.num_frames
        self.frame_width = self.video_width = found.width
        self.device, self.precision = str(chosen), str(found.dtype).removeprefix("torch.")
        self.provenance: Mapping[str, Any] = {
            "library": found.kind,
            "architecture": found.architecture,
            "licence": found.licence,
        }

    def encoder_key(self) -> str:
        """Return the key of the model, for it has no encoder of single frames."""
        return self.model_key()

    def model_key(self) -> str:
        """Return a hash of the weights, and of the config if there is one."""
        digest = hashlib.blake2b(digest_size=20)
        digest.update(self.classifier.architecture.encode())
        for path in self.classifier.files:
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        return digest.hexdigest()

    def embed_frames(self, frames_TCHW: Frames) -> NoReturn:
        """Raise ConfigError: no frame has an embedding of its own."""
        raise ConfigError(
            f"{self.name} mixes frames inside its encoder, so none of {len(frames_TCHW)} frames has an embedding of its own; use "
            "a model of fewframes"
        )

    def encode_clips(self, frames_BTCHW: Frames) -> Floats:
        """Return the embedding of each whole clip, once for each of its frames: (B, T, C, H, W) uint8 -> (B, T, D)."""
        embeddings_BD = self.classifier.embed(frames_BTCHW)
        return np.repeat(embeddings_BD[:, None], frames_BTCHW.shape[1], axis=1)

    def encode_windows(self, embeddings_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:
        """Return logits, clip embeddings and, if asked for, equal weights of the frames, of what `encode_clips` returned."""
        clips_BD = np.ascontiguousarray(embeddings_BTD[:, 0], np.float32)
        attention_BT = np.full(embeddings_BTD.shape[:2], 1 / embeddings_BTD.shape[1], np.float32)
        return WindowEncoding(self.classifier.classify(clips_BD), clips_BD, attention_BT if with_attention else None)


def classifier_of(name: str) -> VideoClassifier | BaselineClassifier:
    """Return the classifier of a name: of transformers, or of the comparison. The errors are those of the two."""
    return BaselineClassifier(name) if name.startswith(BASELINE_PREFIX) else VideoClassifier(name)
