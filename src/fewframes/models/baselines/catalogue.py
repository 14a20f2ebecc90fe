"""The systems that are measured side by side, ours among them, by name: `BASELINES`.

Each has a protocol of its own: the frames of a view, their size, and how many views of a video are averaged. Published figures
are from the paper's Tables 1, 5, 6 and 7, or from the system's own authors if the paper has none. GMACs are what papers call
GFLOPs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from torch import nn

from fewframes.errors import ConfigError, nearest
from fewframes.models.baselines import eco, inflated, r2plus1d, tsm, video_transformer
from fewframes.models.baselines.systems import FPS, NUM_CLASSES, PYTORCHVIDEO, TRANSFORMERS, Baseline, Published
from fewframes.models.config import ModelConfig
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.names import BASELINE_PREFIX, HF_PREFIX, downloaded_path
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS
from fewframes.sampling import Views
from fewframes.video.view import ViewConfig

Colour = tuple[float, float, float]

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


VIDEO = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
S3D = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
"""Means and deviations of pixels, by the kind of training that a network had."""


def _view(crop_px: int, pixels: tuple[Colour, Colour] = VIDEO, resize_px: int | None = None) -> ViewConfig:
    """Return a view with a square of `crop_px` from frames resized to `resize_px`, by default the same."""
    mean, std = pixels
    return ViewConfig(resize_px=resize_px or crop_px, crop_px=crop_px, interpolation="bilinear", mean=mean, std=std)


def _dense(frames: int, stride: int, num_clips: int, num_crops: int) -> Views:
    """Return clips of `frames` frames, every `stride`-th of a video of `FPS` frames a second, each in `num_crops` crops."""
    return Views(num_clips=num_clips, num_crops=num_crops, clip_s=frames * stride / FPS)


def _hub(name: str) -> Callable[[], nn.Module]:
    """Return a function that builds a network of PyTorchVideo's hub."""

    def make() -> nn.Module:
        with warnings.catch_warnings(
            action="ignore", category=FutureWarning
        ):  # pytorchvideo uses torch.jit, which is deprecated
            from pytorchvideo.models import hub  # late: an optional package

        return _with_logits(getattr(hub, name)(pretrained=False))

    return make


def _x3d_xl() -> nn.Module:
    """Build X3D-XL, which PyTorchVideo's hub does not have."""
    with warnings.catch_warnings(
        action="ignore", category=FutureWarning
    ):  # pytorchvideo uses torch.jit, which is deprecated
        from pytorchvideo.models.x3d import create_x3d  # late: an optional package

    return _with_logits(
        create_x3d(input_clip_length=16, input_crop_size=356, width_factor=2.9, depth_factor=5.0)  # 11.1 M, 48.4 GMACs
    )


def _with_logits(network: nn.Module) -> nn.Module:
    """Return an X3D network that ends in logits, as the others do. Its own head ends in softmax, even in training."""
    network.blocks[-1].activation = None  # type: ignore[index,union-attr]
    return network


def _torchvision(name: str) -> Callable[[], nn.Module]:
    """Return a function that builds a video network of torchvision."""

    def make() -> nn.Module:
        from torchvision.models import video  # late: torchvision is slow to import

        network: nn.Module = getattr(video, name)(num_classes=NUM_CLASSES)
        return network

    return make


def _transformers(kind: str, **settings: object) -> Callable[[], nn.Module]:
    """Return a function that builds a video classifier of transformers with these fields of its config."""

    def make() -> nn.Module:
        import transformers  # late: an optional package

        config = getattr(transformers, f"{kind}Config")(num_labels=NUM_CLASSES, **settings)
        network: nn.Module = getattr(transformers, f"{kind}ForVideoClassification")(config)
        return network

    return make


def _ours(name: str, published: Published) -> Baseline:
    """Return a preset of ours as a baseline: one pass over its own frames."""
    model: ModelConfig = PRESETS[name].model
    view: ViewConfig = PRESETS[name].view
    return Baseline(
        build=lambda: build_model(model, view),
        frames=model.num_frames,
        view=view,
        takes="frames",
        published=published,
    )


def _published_stam(
    name: str,
    top1: float | None,
    gmacs: float | None,
    videos_s: float | None = None,
    *,
    ucf101: float | None = None,
    charades: float | None = None,
    source: str = "Tables 1 and 4",
) -> Baseline:
    """Return a preset of STAM with the figures of the paper."""
    published = Published(
        top1=top1,
        gmacs=gmacs,
        params_m=96,
        videos_s=videos_s,
        ucf101=ucf101,
        charades=charades,
        source=source,
    )
    return _ours(name, published)


OURS: dict[str, Baseline] = {
    "stam-16": _published_stam("stam-16", 79.3, 270, 20.0),
    "stam-64": _published_stam(
        "stam-64", 80.5, 1080, 4.8, charades=39.7, source="Tables 1, 4 and 7; 1040 GMACs in Table 7"
    ),
    "stam-8": _published_stam("stam-8", 77.1, 135),
    "stam-32": _published_stam("stam-32", 79.9, 540, 10.0, ucf101=97.0, source="Tables 4 and 6"),
    "stam-paper-16": _published_stam("stam-paper-16", 79.3, 270, 20.0),
    "resnet50-16": _ours("resnet50-16", Published(top1=72.5, gmacs=70, source="Table 3")),
    "tresnet-m-16": _ours("tresnet-m-16", Published(top1=75.7, gmacs=93, source="Tables 2 and 3")),
    "vit-b-mean-16": _ours("vit-b-mean-16", Published(top1=75.1, gmacs=265, source="Table 2")),
    "lite0-16": _ours("lite0-16", Published()),
}


OF_THE_PAPER: dict[str, Baseline] = {
    "x3d-m": Baseline(
        build=_hub("x3d_m"), frames=16, view=_view(256), views=_dense(16, 5, 10, 3), package=PYTORCHVIDEO,
        published=Published(top1=76.0, gmacs=6.2, params_m=3.8, videos_s=1.3, source="Table 1"),
    ),
    "x3d-l": Baseline(
        build=_hub("x3d_l"), frames=16, view=_view(356), views=_dense(16, 5, 10, 3), package=PYTORCHVIDEO,
        published=Published(top1=77.5, gmacs=24.8, params_m=6.1, videos_s=0.46, source="Tables 1 and 5"),
    ),
    "x3d-xl": Baseline(
        build=_x3d_xl, frames=16, view=_view(356), views=_dense(16, 5, 10, 3), package=PYTORCHVIDEO,
        published=Published(top1=79.1, gmacs=48.4, params_m=11.0, charades=43.4, source="Tables 1 and 7"),
    ),
    "slowfast-8x8-r50": Baseline(
        build=_hub("slowfast_r50"), frames=32, view=_view(256), views=_dense(32, 2, 10, 3), takes="pathways",
        package=PYTORCHVIDEO,
        published=Published(top1=77.0, gmacs=65.7, params_m=34.4, videos_s=1.4, source="Tables 1 and 5"),
    ),
    "tsm-r50": Baseline(
        build=tsm.tsm_resnet50, frames=16, view=_view(224, IMAGENET, 256), views=_dense(16, 4, 10, 1),
        published=Published(top1=74.7, gmacs=65, params_m=24.3, source="Table 1"),
    ),
    "i3d-r50": Baseline(
        build=_hub("i3d_r50"), frames=8, view=_view(256), views=_dense(8, 8, 10, 3), package=PYTORCHVIDEO,
        published=Published(params_m=28.0, gmacs=37.5, top1=73.3, source="PyTorchVideo's model zoo"),
    ),
    "i3d-r50-nl": Baseline(
        build=inflated.nonlocal_i3d, frames=8, view=_view(256), views=_dense(8, 8, 10, 3),
        published=Published(params_m=35.3, source="SlowFast's model zoo"),
    ),
    "nonlocal-r101": Baseline(
        build=lambda: inflated.nonlocal_i3d(depth=101), frames=32, view=_view(256), views=_dense(32, 4, 10, 3),
        published=Published(top1=77.7, gmacs=359, params_m=54.3, source="Table 1"),
    ),
    "oct-i3d-nl": Baseline(
        build=inflated.octave_i3d_nonlocal, frames=8, view=_view(224, resize_px=256), views=_dense(8, 8, 10, 3),
        published=Published(top1=75.7, gmacs=28.9, params_m=33.6, source="Table 1"),
    ),
    "eco": Baseline(
        build=eco.eco, frames=16, view=_view(224, resize_px=240),
        published=Published(gmacs=64, params_m=47.5, ucf101=93.6, videos_s=20.8, source="Table 6; cost: TSM's authors"),
    ),
    "faster32": Baseline(
        build=r2plus1d.faster32, frames=32, view=_view(224, resize_px=256), views=_dense(32, 2, 8, 1), takes="clips",
        published=Published(top1=75.3, gmacs=8 * 67.7, ucf101=96.9, videos_s=2.8, source="Table 6; cost: its authors"),
    ),
    "r2plus1d-34": Baseline(
        build=r2plus1d.r2plus1d_34, frames=32, view=_view(112, S3D, 128), views=_dense(32, 2, 10, 1),
        published=Published(params_m=63.6, gmacs=152, ucf101=96.8, source="Table 6; cost: its authors"),
    ),
    "s3d": Baseline(
        build=_torchvision("s3d"), frames=128, view=_view(224, S3D, 256), views=_dense(128, 2, 1, 1),
        published=Published(top1=68.4, params_m=8.3, ucf101=96.8, source="Table 6; top-1, protocol: torchvision"),
    ),
}  # fmt: skip


MODERN: dict[str, Baseline] = {
    "action-recognition-0001": Baseline(
        build=video_transformer.resnet34_transformer, frames=16, view=_view(224, IMAGENET), views=_dense(16, 2, 1, 1),
        published=Published(gmacs=16 * 3.67 + 0.0735, params_m=25.7, source="OpenVINO's model zoo; FLOPs halved"),
    ),
    "timesformer-b": Baseline(
        build=_transformers("Timesformer", num_frames=8), frames=8, view=_view(224), takes="frames",
        views=_dense(8, 32, 1, 3), package=TRANSFORMERS,
        published=Published(top1=77.9, gmacs=196, params_m=121.4, source="its authors"),
    ),
    "vivit-b": Baseline(
        build=_transformers("Vivit"), frames=32, view=_view(224, HALF), views=_dense(32, 2, 4, 3), takes="frames",
        package=TRANSFORMERS, published=Published(top1=79.9, params_m=88.9, source="its authors"),
    ),
    "videomae-b": Baseline(
        build=_transformers("VideoMAE", use_mean_pooling=True), frames=16, view=_view(224, IMAGENET), views=_dense(16, 4, 5, 3),
        takes="frames", package=TRANSFORMERS,
        published=Published(top1=81.5, gmacs=180, params_m=87, source="its authors"),
    ),
    "vjepa2-l": Baseline(
        build=_transformers("VJEPA2", frames_per_clip=16), frames=16, view=_view(256, IMAGENET, 292), views=_dense(16, 4, 2, 3),
        takes="frames", package=TRANSFORMERS, published=Published(source="its authors give Something-Something"),
    ),
    "mvit-v2-s": Baseline(
        build=_torchvision("mvit_v2_s"), frames=16, view=_view(224, resize_px=256), views=_dense(16, 4, 5, 1),
        published=Published(top1=81.0, gmacs=64.2, params_m=34.5, source="its authors"),
    ),
    "swin3d-t": Baseline(
        build=_torchvision("swin3d_t"), frames=32, view=_view(224, IMAGENET), views=_dense(32, 2, 4, 3),
        published=Published(top1=78.8, gmacs=88, params_m=28.2, source="its authors"),
    ),
    "swin3d-b": Baseline(
        build=_torchvision("swin3d_b"), frames=32, view=_view(224, IMAGENET), views=_dense(32, 2, 4, 3),
        published=Published(top1=80.6, gmacs=282, params_m=88.1, source="its authors"),
    ),
}  # fmt: skip


BASELINES: dict[str, Baseline] = {**OURS, **OF_THE_PAPER, **MODERN}


PUBLISHED_ONLY: dict[str, Published] = {
    "I3D": Published(ucf101=95.6, source="Table 6; its network and views are not named"),
    "Nonlocal": Published(charades=37.5, gmacs=544, source="Table 7; its depth and frames are not named"),
    "STRG + NL": Published(charades=39.7, gmacs=630, source="Table 7; needs a detector's boxes"),
    "Timeception": Published(charades=41.1, source="Table 7; 1024 frames of a video through I3D"),
    "SlowFast + NL": Published(charades=42.5, gmacs=234, source="Table 7; R101 with 64 frames"),
    "LFB + NL": Published(charades=42.5, gmacs=529, source="Table 7; needs a detector's boxes and a bank of features"),
}
"""The systems of the paper's tables that were not rebuilt; only their published figures are shown."""


def baseline_of(name: str) -> Baseline:
    """Return a baseline by its name, or a model of ours by its file. ConfigError offers the nearest name."""
    if name in BASELINES:
        return BASELINES[name]
    if name.startswith(HF_PREFIX):
        from fewframes.models.video_classifiers.network import VideoClassifier  # late: an optional package

        found = VideoClassifier(name)
        for (
            parameter
        ) in found.network.parameters():  # the counter of cost fails on a query that learns (VideoPrism's pooling)
            parameter.requires_grad_(parameter.ndim == 2)
        return Baseline(
            build=lambda: found.network, frames=found.num_frames, view=found.view, takes="frames", package=TRANSFORMERS
        )
    if name.startswith(BASELINE_PREFIX):
        system, _, file = name.removeprefix(BASELINE_PREFIX).partition("=")
        raise ConfigError(
            f"{name}: is measured under its name, with its weights beside: {system} --weights {system}={file}"
        )
    if not Path(name).exists():
        raise ConfigError(f"no system {name!r}, and no file of that name; {nearest(name, BASELINES)}")
    checkpoint = load_checkpoint(name)
    frames = checkpoint.model.config.num_frames
    return Baseline(build=lambda: checkpoint.model, frames=frames, view=checkpoint.view, takes="frames")


def has_weights(name: str) -> bool:
    """Return True if a system has weights of its own: a file of ours, the packaged model, or a release that was pulled."""
    if name not in PRESETS:
        return name not in BASELINES
    return PRESETS[name].weights == "packaged" or (
        PRESETS[name].weights == "released" and downloaded_path(name).is_file()
    )
