"""Image-text models by name, file and folder: what they compute is what open_clip computes, and how they see frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.files.checkpoint import save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.layers import pixels_of
from fewframes.models.words.encoders import DEFAULT_ENCODER
from fewframes.models.words.image_text import encoder_source, open_image_text
from fewframes.models.words.licences import licence_of
from fewframes.models.words.model import words_checkpoint
from fewframes.models.words.phrases import word_labels
from fewframes.video.view import ViewConfig

open_clip = pytest.importorskip("open_clip")

PLAIN = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
SIGLIP = PLAIN | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "act_kwargs": {"approximate": "tanh"}}
VIT = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}


def timm_half(name: str, size: int, pool: str, proj: str | None = None) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": size, "timm_pool": pool, "timm_proj": proj}


FAMILIES: dict[str, dict[str, Any]] = {
    "CLIP": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": PLAIN},
    "OpenAI": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": PLAIN, "quick_gelu": True},
    "ResNet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
        "text_cfg": PLAIN,
    },
    "SigLIP 2": {
        "embed_dim": 768,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": timm_half("vit_base_patch32_siglip_256", 256, "map", "none"),
        "text_cfg": SIGLIP,
    },
    "PE-Core": {
        "embed_dim": 512,
        "custom_text": True,
        "vision_cfg": timm_half("vit_pe_core_tiny_patch16_384", 384, "map"),
        "text_cfg": PLAIN,
    },
    "MobileCLIP 2": {
        "embed_dim": 512,
        "custom_text": True,
        "vision_cfg": timm_half("fastvit_mci0", 256, "avg"),
        "text_cfg": PLAIN | {"no_causal_mask": True},
    },
    "EVA 02": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": timm_half("eva02_tiny_patch14_224", 224, "token"),
        "text_cfg": PLAIN,
    },
}
"""The smallest of each family: its own kind of image half, and a text half of one layer."""
VIEW = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.3, 0.35], "interpolation": "bilinear", "resize_mode": "squash"}


def write_random(folder: Path, settings: dict[str, Any], preprocess: dict[str, Any] = VIEW) -> Path:
    """Write a model of these settings with random weights, as open_clip does."""
    folder.mkdir()
    kind = open_clip.CustomTextCLIP if settings.get("custom_text") else open_clip.CLIP
    torch.manual_seed(0)
    model = kind(**{name: value for name, value in settings.items() if name != "custom_text"})
    for part in (model.visual, getattr(model, "text", model.transformer if kind is open_clip.CLIP else model)):
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))  # fresh weights are zeros and ones in places
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": preprocess}))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_and_texts_are_those_of_open_clip(family: str, tmp_path: Path) -> None:
    from PIL import Image

    folder = write_random(tmp_path / "model", FAMILIES[family])
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs = theirs.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")
    found = open_image_text(str(folder))
    size = found.view.crop_px
    frames_THWC = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    texts = ["a person opens a door", "a red circle"]
    with torch.inference_mode():
        pictures = torch.stack([transform(Image.fromarray(frame)) for frame in frames_THWC])
        images_TD = theirs.encode_image(pictures, normalize=True)
        texts_ND = theirs.encode_text(tokens(texts), normalize=True)
    np.testing.assert_allclose(found.embed_texts(texts), texts_ND, atol=1e-5)
    # Through the model file: the network is built again from the settings in it.
    save_checkpoint(tmp_path / "words.safetensors", words_checkpoint(word_labels("a door; a circle"), found))
    model = load_checkpoint(tmp_path / "words.safetensors").model
    with torch.inference_mode():
        embeddings_TD = model.encode_frames(pixels_of(torch.from_numpy(frames_THWC.transpose(0, 3, 1, 2).copy())))
        logits_1K = model.encode_video(embeddings_TD[None]).logits
    np.testing.assert_allclose(embeddings_TD, images_TD, atol=1e-5)
    assert float((images_TD[0] - images_TD[1]).norm()) > 1e-3  # they are not all one vector
    labels_KD = found.embed_texts(["a door", "a circle"])
    assert logits_1K.shape == (1, len(labels_KD))


def test_logits_are_the_scaled_cosine_of_the_mean_frame_with_each_labels_sentences(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model", FAMILIES["CLIP"])
    encoder = open_image_text(str(folder))
    model = words_checkpoint(word_labels("door=a door|a gate; a circle"), encoder).model
    frames_TCHW = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        mean_D = model.encode_frames(frames_TCHW).mean(dim=0).numpy()
        logits_K = model(frames_TCHW[None])[0].numpy()
    gates = encoder.embed_texts(
        [sentence for phrase in ("a door", "a gate") for sentence in (
            phrase, f"a video of {phrase}", f"a photo of {phrase}", f"a frame of a video that shows {phrase}"
        )]
    ).mean(axis=0)  # fmt: skip
    assert logits_K[0] == pytest.approx(encoder.scale * float(mean_D @ gates / np.linalg.norm(gates)), abs=1e-4)


def test_a_registered_architecture_with_a_file_of_weights(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model", FAMILIES["CLIP"])
    (tmp_path / "tiny-words.json").write_text(json.dumps(FAMILIES["CLIP"]))
    open_clip.add_model_config(tmp_path / "tiny-words.json")
    named = open_image_text("clip:tiny-words", folder / "open_clip_model.safetensors")
    np.testing.assert_array_equal(named.embed_texts(["a door"]), open_image_text(str(folder)).embed_texts(["a door"]))
    assert named.name == "clip:tiny-words"
    assert named.weights == str(folder / "open_clip_model.safetensors")
    with pytest.raises(ConfigError, match=r"clip:tiny-words: which weights\? it has none: give a file"):
        open_image_text("clip:tiny-words")
    with pytest.raises(WeightsError, match="no such file of weights"):
        open_image_text("clip:tiny-words", tmp_path / "absent.bin")
    (tmp_path / "other.json").write_text(json.dumps(FAMILIES["CLIP"] | {"embed_dim": 16}))
    open_clip.add_model_config(tmp_path / "other.json")
    with pytest.raises(
        WeightsError, match=r"its weights cannot be loaded as clip:other \(.*size mismatch for visual.proj"
    ):
        open_image_text("clip:other", folder / "open_clip_model.safetensors")
    (tmp_path / "junk.pt").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match=r"junk.pt: neither safetensors nor a file of torch.save"):
        open_image_text("clip:tiny-words", tmp_path / "junk.pt")


@pytest.mark.parametrize(
    ("name", "fit", "crop_px", "interpolation", "mean", "quick", "licence"),
    [
        ("clip:ViT-B-16/openai", "crop", 224, "bicubic", 0.48145466, True, "MIT"),
        ("clip:ViT-B-32/laion2b_s34b_b79k", "crop", 224, "bicubic", 0.48145466, False, "MIT"),
        ("clip:ViT-B-16-SigLIP2/webli", "squash", 224, "bicubic", 0.5, False, "Apache-2.0"),
        ("clip:PE-Core-B-16/meta", "squash", 224, "bilinear", 0.5, False, "Apache-2.0"),
        ("clip:EVA02-B-16/merged2b_s8b_b131k", "crop", 224, "bicubic", 0.48145466, False, "MIT"),
        ("clip:MobileCLIP2-S0/dfndr2b", "crop", 256, "bilinear", 0.0, False, "Apple Machine Learning Research Model licence"),
        ("clip:ViT-B-32-quickgelu/metaclip_400m", "crop", 224, "bicubic", 0.48145466, True, "CC-BY-NC-4.0"),
    ],
)  # fmt: skip
def test_the_view_the_activation_and_the_licence_are_those_of_the_weights(
    name: str, fit: str, crop_px: int, interpolation: str, mean: float, quick: bool, licence: str
) -> None:
    source = encoder_source(name)
    view = source.view
    assert (view.fit, view.crop_px, view.resize_px, view.interpolation) == (fit, crop_px, crop_px, interpolation)
    assert view.mean[0] == pytest.approx(mean)
    assert source.quick_gelu is quick
    assert source.licence.name == licence


def test_licences_that_forbid_something_say_it_and_unknown_ones_are_not_guessed() -> None:
    assert licence_of("metaclip2_worldwide").forbids == "commercial use"
    assert licence_of("dfn5b").forbids == "any use but research"
    assert licence_of("webli").forbids == ""
    assert licence_of("yfcc15m").name.startswith("not known here")
    assert encoder_source(DEFAULT_ENCODER).licence.forbids == ""


def test_names_that_do_not_exist() -> None:
    with pytest.raises(
        ConfigError, match=r"no folder, and open_clip has no model 'ViT-B-61'; did you mean 'ViT-B-16'\?"
    ):
        encoder_source("clip:ViT-B-61/openai")
    with pytest.raises(
        ConfigError, match=r"no weights 'opnai' of RN50x64; it has openai: name one, such as clip:RN50x64/openai"
    ):
        encoder_source("clip:RN50x64/opnai")
    with pytest.raises(ConfigError, match=r"/no/such/folder: no such folder; name one with open_clip_config.json"):
        encoder_source("/no/such/folder")
    with pytest.raises(ConfigError, match="it writes captions"):
        encoder_source("clip:coca_ViT-B-32/laion2b_s13b_b90k")


def test_without_a_network_the_error_says_how_to_bring_the_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"cannot be fetched .*hf download timm/PE-Core-B-16 --local-dir FOLDER"):
        open_image_text("clip:PE-Core-B-16/meta")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "not the settings of an image-text model"),
        ("no json", "not the settings of an image-text model"),
        (json.dumps({"model_cfg": FAMILIES["CLIP"]}), "its weights cannot be loaded"),
        (json.dumps({"model_cfg": FAMILIES["CLIP"] | {"vision_cfg": VIT | {"image_size": [32, 48]}}}), "no squares"),
    ],
)
def test_folders_that_hold_no_model(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises((WeightsError, ConfigError), match=words):
        open_image_text(str(tmp_path)).view.crop_px  # noqa: B018
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(WeightsError, match=r"open_clip_config.json: cannot be read"):
        open_image_text(str(tmp_path))


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model", FAMILIES["CLIP"])
    model = open_clip.create_model(f"local-dir:{folder}")
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    state["visual.proj"][0, 0] = float("nan")
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(WeightsError, match=r"visual.proj has values that are no numbers"):
        open_image_text(str(folder))


def test_a_tower_is_no_address(tmp_path: Path) -> None:
    from fewframes.models.words.encoder import clip_frame_encoder

    tower = {"embed_dim": 8, "quick_gelu": False, "vision_cfg": {"timm_model_name": "hf-hub:someone/something"}}
    with pytest.raises(ConfigError, match="timm has no network 'hf-hub:someone/something'"):
        clip_frame_encoder("clip:x", json.dumps(tower))


def test_the_view_of_a_folder(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "model", FAMILIES["CLIP"])
    assert open_image_text(str(folder)).view == ViewConfig(
        fit="squash", resize_px=32, crop_px=32, interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.25, 0.3, 0.35)
    )
