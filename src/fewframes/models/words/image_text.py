"""Image-text models of open_clip by name, from a file of weights, or from a folder: their two halves and their view of frames."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError, WeightsError, nearest, needed
from fewframes.models.config import CLIP, TIMM
from fewframes.models.files.model_file import MOST_REASON, one_line
from fewframes.models.files.tensor_files import BAD_PICKLE, read_tensors
from fewframes.models.sharing.reach import hub_or_cache
from fewframes.models.words.encoder import ClipFrameEncoder, open_clip_package, tower_of
from fewframes.models.words.encoders import DEFAULT_ENCODER
from fewframes.models.words.licences import UNKNOWN, WeightsLicence, licence_of
from fewframes.video.view import ViewConfig

FITS = {"shortest": "crop", "squash": "squash", "longest": "pad"}
"""open_clip's ways to a square, as `ViewConfig.fit` names them."""
SETTINGS_FILE = "open_clip_config.json"
"""The file in a folder that names the architecture and the view, as open_clip writes it and as its models on the hub have it."""
IN_FOLDER = "local-dir:"
"""The prefix by which open_clip takes a folder for a name."""
TEXTS_AT_ONCE = 64
BAD_WEIGHTS = (*BAD_PICKLE, SafetensorError)


@dataclass(frozen=True, eq=False)
class ImageText:
    """An image-text model: a frame encoder, and a text encoder whose vectors can be compared with its embeddings."""

    name: str
    """The name: `clip:ARCHITECTURE/TAG`, or `clip:` and the name of a folder."""
    weights: str
    """The file or folder that the weights come from; empty if they are fetched by their name."""
    frame_encoder: ClipFrameEncoder
    """The image half."""
    tower: str
    """The settings of the image half (`ModelConfig.tower`)."""
    view: ViewConfig
    """The size and normalisation of the frames."""
    scale: float
    """The number that cosines are multiplied by to become logits, as it was learned."""
    licence: WeightsLicence
    """The licence of the weights."""
    model: Any
    """The whole model of open_clip."""
    tokenizer: Any
    """The tokenizer of open_clip."""

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector of length 1 for each text: (N, D)."""
        with torch.inference_mode():
            parts = [
                self.model.encode_text(self.tokenizer(list(texts[first : first + TEXTS_AT_ONCE])), normalize=True)
                for first in range(0, len(texts), TEXTS_AT_ONCE)
            ]
        vectors_ND: NDArray[np.float32] = torch.cat(parts).float().numpy()
        return vectors_ND


@dataclass(frozen=True)
class EncoderSource:
    """A model before its weights are read: its name, its settings, and what is known of its weights."""

    name: str
    """The name: `clip:ARCHITECTURE/TAG`, or `clip:` and the name of a folder."""
    known_as: str
    """The name under which open_clip builds it."""
    settings: dict[str, Any]
    """open_clip's settings of the architecture."""
    published: dict[str, Any]
    """The facts that open_clip has of the weights: the view of frames, and where they are."""
    licence: WeightsLicence
    """The licence of the weights."""
    quick_gelu: bool
    """True if the weights were trained with the fast form of GELU."""

    @property
    def view(self) -> ViewConfig:
        """Return the view: the size of the image half, and what the weights say. Raises ConfigError for one that is none."""
        own = self.settings["vision_cfg"].get("image_size", 224)
        if not isinstance(own, int):
            raise ConfigError(f"{self.name}: takes frames of {own} px, which are no squares; take another encoder")
        known = open_clip_package()
        pixels = {"mean": known.OPENAI_DATASET_MEAN, "std": known.OPENAI_DATASET_STD} | self.published
        fields = {
            "fit": FITS.get(str(self.published.get("resize_mode", "shortest")), "crop"),
            "resize_px": own,
            "crop_px": own,
            "interpolation": self.published.get("interpolation", "bicubic"),
            "mean": [float(value) for value in pixels["mean"]],
            "std": [float(value) for value in pixels["std"]],
        }
        return settings_from(ViewConfig, fields, f"{self.name}: view")


def open_image_text(encoder: str = DEFAULT_ENCODER, weights: str | os.PathLike[str] | None = None) -> ImageText:
    """Open an image-text model.

    Args:
        encoder: `clip:ARCHITECTURE/TAG` as open_clip lists them (`clip:ViT-B-16/openai`), whose weights are fetched unless they
            were before; or a folder with open_clip_config.json, the weights, and the tokenizer if the model has one of its own.
        weights: a file with the weights, in place of fetched ones. The tag, if there is one, then says how frames are seen.

    Raises:
        ConfigError: there is no such architecture or tag, or the model cannot be a frame encoder.
        WeightsError: the weights cannot be fetched or read, or do not fit.
        MissingDependency: open_clip is not installed.
    """
    package = open_clip_package()
    source, view, model = _opened_model(encoder, weights)
    folder = source.known_as.removeprefix(IN_FOLDER)
    is_folder = source.known_as != folder
    return ImageText(
        name=source.name,
        weights=os.path.abspath(weights or folder) if is_folder or weights is not None else "",
        frame_encoder=ClipFrameEncoder(model.visual, int(source.settings["embed_dim"])).eval(),
        tower=tower_of(source.settings, quick_gelu=source.quick_gelu),
        view=view,
        scale=float(model.logit_scale.detach().exp()),
        licence=source.licence,
        model=model,
        tokenizer=_tokenizer(package, source),
    )


def open_image_half(encoder: str, weights: str | os.PathLike[str] | None = None) -> ClipFrameEncoder:
    """Open the image half of an image-text model alone, which needs no tokenizer.

    The arguments and errors are those of `open_image_text`.
    """
    source, _, model = _opened_model(encoder, weights)
    return ClipFrameEncoder(model.visual, int(source.settings["embed_dim"])).eval()


def _opened_model(encoder: str, weights: str | os.PathLike[str] | None) -> tuple[EncoderSource, ViewConfig, Any]:
    """Return what is known of a model, its view, and the whole model with its weights."""
    package = open_clip_package()
    source = encoder_source(encoder)
    folder = source.known_as.removeprefix(IN_FOLDER)
    is_folder = source.known_as != folder
    if is_folder and weights is not None:
        raise ConfigError(f"{folder}: a folder has its own weights; leave {weights} out, or name an architecture")
    view = source.view  # a model that cannot be a frame encoder is refused before anything is fetched
    file = "" if is_folder else _fetched(package, source) if weights is None else _readable(os.fspath(weights))
    return source, view, _opened(package, source, file)


def encoder_source(encoder: str) -> EncoderSource:
    """Return what is known of an image-text model before its weights are read. Nothing is fetched.

    Args:
        encoder: the name or folder, as `open_image_text` takes it. A tag may be left out if there is a file of weights.

    Raises:
        ConfigError: there is no such architecture or tag, or the model cannot be a frame encoder.
        WeightsError: the folder has no settings, or none of an image-text model.
        MissingDependency: open_clip is not installed.
    """
    if encoder.startswith(TIMM):
        raise ConfigError(
            f"{encoder}: learned from pictures alone or has no text half in timm, so it cannot be compared with words; name an "
            f"encoder of open_clip, such as {DEFAULT_ENCODER}, or teach {encoder} by examples: fewframes train FOLDER --encoder "
            f"{encoder}"
        )
    folder = encoder.removeprefix(CLIP)
    source = _in_folder(Path(folder)) if os.path.isdir(folder) else _by_name(open_clip_package(), encoder)
    if "multimodal_cfg" in source.settings:
        raise ConfigError(
            f"{encoder}: it writes captions (CoCa); take a model of two halves, such as {DEFAULT_ENCODER}"
        )
    return source


def _in_folder(folder: Path) -> EncoderSource:
    """Return the model of a folder. Raises WeightsError if there is none in it."""
    path = folder / SETTINGS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = content["model_cfg"]
        vision, text, preprocess = settings["vision_cfg"], settings["text_cfg"], content.get("preprocess_cfg", {})
        if not all(isinstance(part, dict) for part in (vision, text, preprocess)):
            raise TypeError("its parts are not objects")
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}); an encoder in a folder needs it beside its weights, as the models of "
            "open_clip on the hub have it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: not the settings of an image-text model ({type(error).__name__}: {error})"
        ) from None
    return EncoderSource(
        name=f"{CLIP}{folder.resolve().name}",
        known_as=f"{IN_FOLDER}{folder}",
        settings=settings,
        published=preprocess,
        licence=UNKNOWN,
        quick_gelu=bool(settings.get("quick_gelu", False)),
    )


def _by_name(package: Any, encoder: str) -> EncoderSource:
    """Return the model of a name. Raises ConfigError for an architecture or a tag that open_clip does not have."""
    architecture, _, tag = encoder.removeprefix(CLIP).partition("/")
    names = package.list_models()
    if not architecture or architecture in (".", "..", "~"):
        raise ConfigError(
            f"{encoder}: no such folder; name one with {SETTINGS_FILE}, or an encoder such as {DEFAULT_ENCODER}"
        )
    if architecture not in names:
        raise ConfigError(
            f"{encoder}: no folder, and open_clip has no model {architecture!r}; {nearest(architecture, names)}"
        )
    published = package.get_pretrained_cfg(architecture, tag) if tag else {}
    if tag and not published:
        raise ConfigError(
            f"{encoder}: open_clip has no weights {tag!r} of {architecture}; {_tags(package, architecture)}"
        )
    settings = package.get_model_config(architecture)
    # A tag says which form its weights were trained with, whatever the architecture says of itself.
    says = published if published else settings
    return EncoderSource(
        name=f"{CLIP}{architecture}" + f"/{tag}" * bool(tag),
        known_as=architecture,
        settings=settings,
        published=dict(published),
        licence=licence_of(tag) if tag else UNKNOWN,
        quick_gelu=bool(says.get("quick_gelu", False)),
    )


def _tags(package: Any, architecture: str) -> str:
    """Return the end of an error message: the tags of an architecture."""
    tags = package.list_pretrained_tags_by_model(architecture)
    if not tags:
        return "it has none: give a file of weights"
    return f"it has {', '.join(tags)}: name one, such as {CLIP}{architecture}/{tags[0]}, or give a file of weights"


def _readable(path: str) -> str:
    """Return the path of a file. Raises WeightsError if there is no such file."""
    if not os.path.isfile(path):
        raise WeightsError(f"{path}: no such file of weights; give one that open_clip reads (.safetensors, .bin, .pt)")
    return path


def _fetched(package: Any, source: EncoderSource) -> str:
    """Return the file of published weights, fetched unless it was before. Raises WeightsError with the way without a network."""
    if not source.published:
        raise ConfigError(f"{source.name}: which weights? {_tags(package, source.known_as)}")
    reason = ""
    try:
        with hub_or_cache() as reason:
            return str(package.download_pretrained(source.published))
    except (OSError, RuntimeError, ValueError) as error:
        where = str(source.published.get("hf_hub", "")).rstrip("/") or str(source.published.get("url"))
        raise WeightsError(
            f"{source.name}: its weights cannot be fetched ({reason or one_line(error)}); {_way_out(where)}"
        ) from None


def _way_out(repository: str) -> str:
    """Return the end of an error message: how to bring a model to a machine without a network."""
    return (
        f"without a network, fetch it on another machine (hf download {repository} --local-dir FOLDER), bring the folder here, "
        "and name the folder in place of the encoder"
    )


def _opened(package: Any, source: EncoderSource, file: str) -> Any:
    """Return the whole model with its weights, in eval mode and float32. Raises WeightsError.

    Args:
        package: open_clip.
        source: the model.
        file: the file of its weights; empty for a folder.
    """
    where = file or source.known_as.removeprefix(IN_FOLDER)
    try:
        model = package.create_model(
            source.known_as,
            pretrained=file or None,
            force_quick_gelu=source.quick_gelu,
            require_pretrained=True,
            weights_only=True,
        )
    except BAD_WEIGHTS as error:
        if file and not file.endswith(".npz"):
            read_tensors(Path(file))  # says what is wrong with the file, if it is the file
        reason = " ".join(str(error).split())[:MOST_REASON]
        raise WeightsError(f"{where}: its weights cannot be loaded as {source.name} ({reason})") from None
    state = {key: tensor for key, tensor in model.state_dict().items() if tensor.is_floating_point()}
    broken = next((key for key, tensor in state.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise WeightsError(f"{where}: {broken} has values that are no numbers; take another copy of the file")
    return model.eval().float()


def _tokenizer(package: Any, source: EncoderSource) -> Any:
    """Return the tokenizer of a model. Raises WeightsError with the way without a network, and MissingDependency."""
    tokens = str(source.settings["text_cfg"].get("hf_tokenizer_name") or "")
    if tokens:
        needed("transformers", "words", f"the tokenizer of {source.name} needs transformers")
    reason = ""
    try:
        if not tokens or source.known_as.startswith(IN_FOLDER):
            return package.get_tokenizer(source.known_as)
        with hub_or_cache() as reason:
            return package.get_tokenizer(source.known_as)
    except BAD_WEIGHTS as error:
        raise WeightsError(
            f"{source.name}: its tokenizer cannot be opened ({reason or one_line(error)}); {_way_out(tokens)}"
        ) from None
