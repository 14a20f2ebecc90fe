"""Model files with any content. Sound files load, and all others raise a WeightsError of one line.

No file runs code, or takes memory for numbers that it does not hold.
"""

from __future__ import annotations

import json
import math
import pickle
import random
import resource
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewframes.core.settings import MOST_FRAMES, settings_from
from fewframes.errors import ConfigError, WeightsError
from fewframes.inference.predictor import load
from fewframes.inference.stages.early_exit import stages_of
from fewframes.models.config import ExitPlan, ModelConfig
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.networks import build_model, planned_model
from fewframes.models.presets import PRESETS
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY

ROOM_BYTES = 2 * 2**30


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header of a tiny model that can stop early."""
    torch.manual_seed(0)
    config, view = replace(TINY, num_frames=8), ViewConfig(resize_px=36, crop_px=32)
    path = tmp_path_factory.mktemp("sound") / "m.safetensors"
    plan = ExitPlan(stages=stages_of(8), temperatures=(1.0, 1.0), threshold=0.9)
    save_checkpoint(path, Checkpoint(build_model(config, view), view, LABELS, exits=plan))
    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()["fewframes"])
    return load_file(path), header


@contextmanager
def little_memory() -> Iterator[None]:
    """Limit the memory of the process to `ROOM_BYTES` above its present use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now_bytes = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now_bytes + ROOM_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refusal(path: Path) -> str:
    with little_memory(), pytest.raises(WeightsError) as caught:
        load_checkpoint(path)
    words = str(caught.value)
    assert "\n" not in words
    assert path.name in words
    assert len(words) < 2000
    return words


HEADERS: list[tuple[str, str, Any, str]] = [
    ("model", "num_classes", 2 * 10**9, "num_classes = 2000000000: Input should be less"),
    ("model", "num_classes", 2**20, "3 labels for 1048576 classes"),
    ("model", "num_classes", 0, "num_classes = 0"),
    ("model", "depth", 10**6, "depth = 1000000"),
    ("model", "depth", 1000, "do not fit this network"),
    ("model", "width", 48 * 2000, "do not fit this network"),
    ("model", "width", "wide", "width = 'wide'"),
    ("model", "heads", 5, "not a multiple of heads"),
    ("model", "heads", 2**40, "heads ="),
    ("model", "temporal_heads", 7, "not a multiple of temporal_heads 7"),
    ("model", "temporal_depth", 999, "do not fit this network"),
    ("model", "temporal_width", 2**17, "do not fit this network"),
    ("model", "temporal_mlp_width", 2**17, "do not fit this network"),
    ("model", "motion_width", 2**17, "do not fit this network"),
    ("model", "mlp_ratio", 1e9, "mlp_ratio"),
    ("model", "mlp_ratio", math.nan, "mlp_ratio"),
    ("model", "norm_eps", math.inf, "norm_eps"),
    ("model", "image_size", 10**7, "image_size"),
    ("model", "num_frames", 10**9, "num_frames"),
    ("model", "num_frames", MOST_FRAMES, "exit plan is for 8 frames"),
    ("model", "encoder", "timm:no-such-network", "no backbone 'no-such-network'"),
    ("model", "encoder", "timm:hf-hub:somebody/network", "no backbone 'hf-hub:somebody/network'"),
    ("model", "encoder", "timm:local-dir:/tmp", "no backbone 'local-dir:/tmp'"),
    ("model", "encoder", "../x", "needs 'vit', 'lite0', 'lite1', 'lite2', 'timm:NAME' or"),
    ("model", "encoder", "lite0", "do not fit this network"),
    ("model", "layout", "everywhere", "layout"),
    ("model", "colour", 1, "unknown setting 'colour'"),
    ("view", "mean", [math.nan] * 3, "mean.0 = nan"),
    ("view", "mean", [0.5] * 2, "mean"),
    ("view", "std", [0.0, 1.0, 1.0], "std.0"),
    ("view", "crop_px", 24, "takes frames of 32 px but the view makes 24 px"),
    ("view", "resize_px", 10**9, "resize_px"),
    ("exits", "stages", [[0], list(range(10**5))], "exit plan is for 100000 frames"),
    ("exits", "stages", [[0], [0, 10**12]], "needs all of them, counted from 0"),
    ("exits", "temperatures", [math.nan, 1.0], "temperatures"),
    ("exits", "threshold", None, "threshold"),
    ("", "labels", ["a"], "1 labels for 3 classes"),
    ("", "labels", [1, 2, 3], "labels are not a list of texts"),
    ("", "labels", {"a": 1}, "labels are not a list of texts"),
    ("", "labels", None, "labels are not a list of texts"),
    ("", "model", [1], "model is list, not an object"),
    ("", "view", "crop", "view is str, not an object"),
    ("", "provenance", 3, "provenance is int, not an object"),
    ("", "metrics", None, "metrics is NoneType, not an object"),
    ("", "exits", [], "exits"),
    ("", "thresholds", [0.5, 0.5, 1.5], "thresholds are not a list of numbers between 0 and 1"),
    ("", "thresholds", {"a": 0.5}, "thresholds are not a list of numbers"),
    ("", "thresholds", [0.5, 0.5, 0.5], "3 thresholds for 3 classes of a single model"),
    ("", "format", "1", "header is damaged (format '1')"),
    ("", "format", True, "header is damaged (format True)"),
    ("", "format", 6, "install a newer one"),
    ("", "sampling", "dense", "sampling 'dense'"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "key", "value", "words"), HEADERS, ids=lambda value: str(value)[:24])
def test_headers(
    sound: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path, table: str, key: str, value: Any, words: str
) -> None:
    tensors, header = sound[0], json.loads(json.dumps(sound[1]))
    (header[table] if table else header)[key] = value
    save_file(tensors, tmp_path / "m.safetensors", metadata={"fewframes": json.dumps(header)})
    assert words in refusal(tmp_path / "m.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[" * 500_000, "null", "[1]", '{"model":' * 100_000, "{}", "NaN", "\x00"])
def test_headers_that_are_no_header(sound: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path, text: str) -> None:
    save_file(sound[0], tmp_path / "m.safetensors", metadata={"fewframes": text})
    assert "its header is damaged" in refusal(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: torch.full_like(tensor, math.nan), "no numbers (NaN or infinity)"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([0]), math.inf), "no numbers (NaN or infinity)"),
        (lambda tensor: tensor.long(), "of another kind of number"),
        (lambda tensor: tensor[:1], "of another shape"),
        (lambda tensor: tensor[None], "of another shape"),
    ],
)
@pytest.mark.parametrize("key", ["head.weight", "frame_encoder.blocks.0.attn.qkv.bias"])
def test_tensors(
    sound: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path, key: str, change: Any, words: str
) -> None:
    tensors = {**sound[0], key: change(sound[0][key])}
    save_file(tensors, tmp_path / "m.safetensors", metadata={"fewframes": json.dumps(sound[1])})
    message = refusal(tmp_path / "m.safetensors")
    assert words in message
    assert key in message


def test_large_sound_weights_are_taken(sound: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path) -> None:
    """Finite numbers load even if their sum overflows."""
    tensors = {**sound[0], "head.weight": torch.full_like(sound[0]["head.weight"], 3e38)}
    save_file(tensors, tmp_path / "m.safetensors", metadata={"fewframes": json.dumps(sound[1])})
    assert float(load_checkpoint(tmp_path / "m.safetensors").model.head.weight.detach().max()) > 2.9e38


def own_head(path: Path, head: Any, data: bytes) -> Path:
    """Write a safetensors file with any head."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_heads_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    heads: list[Any] = [
        {"a": {**one, "data_offsets": [-8, 8]}}, {"a": {**one, "data_offsets": [0, 2**63]}}, {"a": one, "b": one},
        {"a": {**one, "shape": [2**60]}}, {"a": {**one, "shape": [2**33, 2**33]}}, {"a": {**one, "dtype": "F99"}},
        {"a": {**one, "data_offsets": [8, 0]}}, {"a": 3}, [], b'{"a":' * 10**5, b"\xff" * 50,
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}',
    ]  # fmt: skip
    for head in heads:
        refusal(own_head(path, head, bytes(8)))
    for length in (0, 2**20, 2**40, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        refusal(path)


def test_damage(sound: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path) -> None:
    """A file that is cut or has flipped bits in its head is refused, or loads (the bit may be in a label or a space)."""
    path, draw = tmp_path / "m.safetensors", random.Random(1)
    save_file(sound[0], path, metadata={"fewframes": json.dumps(sound[1])})
    whole = path.read_bytes()
    head = 8 + struct.unpack("<Q", whole[:8])[0]
    for cut in (0, 1, 7, 8, 9, head // 2, head - 1, head, head + 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refusal(path)
    for _ in range(150):
        mutant = bytearray(whole)
        for _ in range(draw.choice([1, 1, 3])):
            mutant[draw.randrange(head)] ^= 1 << draw.randrange(8)
        path.write_bytes(mutant)
        try:
            with little_memory():
                found = load_checkpoint(path)
        except WeightsError as error:
            words = str(error)
        else:
            words = ""
            assert len(found.labels) == found.model.config.num_classes
        assert "\n" not in words


def test_what_is_no_file(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "none.safetensors", "a\0b", "", "x" * 5000):
        with pytest.raises(WeightsError):
            load_checkpoint(name)
    (tmp_path / "page.safetensors").write_text("<html>404</html>")
    assert "neither safetensors nor a file of torch.save" in refusal(tmp_path / "page.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert "neither a fewframes model nor a STAM release" in refusal(tmp_path / "other.safetensors")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code ran')",)


def release_of(**changes: Any) -> dict[str, Any]:
    state: dict[str, Any] = {
        "cls_token": torch.zeros(1, 1, 64), "pos_embed": torch.zeros(1, 5, 64), "head.weight": torch.zeros(3, 64),
        "patch_embed.proj.weight": torch.zeros(64, 3, 8, 8), "aggregate.pos_embed": torch.zeros(1, 5, 64),
    }  # fmt: skip
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (release_of(), "depth = 0"),
        (release_of(**{"patch_embed.proj.weight": None}), "lacks frame_encoder.patch_embed.proj.weight"),
        (release_of(cls_token=torch.zeros(64)), "cls_token has the shape (64,)"),
        (release_of(cls_token=torch.zeros(1, 1, 100)), "depth = 0"),
        (release_of(pos_embed=torch.zeros(1, 0, 64)), "pos_embed has the shape (1, 0, 64)"),
        (
            release_of(**{"head.weight": torch.zeros(1).expand(2**30, 2**10)}),
            "some numbers of 'head.weight' are not in the file",
        ),
        (release_of(**{"head.weight": torch.zeros(3, 64, device="meta")}), "some numbers of 'head.weight'"),
        (release_of(**{"head.weight": torch.zeros(3, 64).to_sparse()}), "some numbers of 'head.weight'"),
        ({1: torch.zeros(2)}, "not a dictionary of tensors"),
        ([torch.zeros(2)], "not a dictionary of tensors"),
        (torch.zeros(2), "not a dictionary of tensors"),
        ({"model": Evil()}, "not a file of plain tensors"),
    ],
    ids=range(12),
)
def test_files_of_torch_save(tmp_path: Path, content: Any, words: str) -> None:
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pth"
        if legacy and isinstance(content, dict) and any(getattr(one, "is_meta", False) for one in content.values()):
            continue
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        assert words in refusal(path)


def test_damaged_files_of_torch_save(tmp_path: Path) -> None:
    path, draw = tmp_path / "m.pth", random.Random(2)
    for legacy in (False, True):
        torch.save({"model": release_of()}, path, _use_new_zipfile_serialization=not legacy)
        whole = path.read_bytes()
        mutants = [whole[:cut] for cut in (0, 1, 3, 4, 60, len(whole) // 2, len(whole) - 1)]
        for _ in range(60):
            flipped = bytearray(whole)
            flipped[draw.randrange(min(2000, len(whole)))] ^= 1 << draw.randrange(8)
            mutants.append(bytes(flipped))
        for mutant in mutants:
            path.write_bytes(mutant)
            refusal(path)  # even the sound file does not hold a whole network
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}))
        archive.writestr("m/data/0", bytes(10**7))
    assert "compresses nothing" in refusal(path)


def test_planned_networks_have_the_shapes_of_built_ones() -> None:
    """The planned network has the shapes of the real one, for every kind of network that is small enough for a test."""
    kinds = ("lite0-16", "vit-ti-16", "resnet50-16")
    for name in kinds:
        model, view = PRESETS[name].model, PRESETS[name].view
        planned = planned_model(model, view).state_dict()
        assert all(tensor.is_meta for tensor in planned.values())
        built = build_model(model, view).state_dict()
        assert {key: tensor.shape for key, tensor in planned.items()} == {
            key: tensor.shape for key, tensor in built.items()
        }


def test_bounds_leave_room_for_every_preset() -> None:
    for preset in PRESETS.values():
        assert settings_from(ModelConfig, vars(preset.model), "preset") == preset.model
    assert ModelConfig(image_size=1024, num_frames=1024, width=6144, heads=48, depth=96, num_classes=21_843)
    with pytest.raises(ConfigError, match="less than or equal to 4096"):
        settings_from(ModelConfig, {"num_frames": 4097}, "run")


def test_a_wrong_value_is_shown_in_part() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from(ModelConfig, {"width": "x" * 10**6}, "run")
    assert len(str(caught.value)) < 500


def test_saving_leaves_nothing_half_written(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_model)
    with pytest.raises(ConfigError, match=r"dtype = torch.int8: needs a type of real numbers"):
        save_checkpoint(tmp_path / "m.safetensors", checkpoint, dtype=torch.int8)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 (the system's words)
        save_checkpoint(tmp_path / "folder", checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_answers_that_are_no_numbers_are_told(tiny_model: Path, videos: Path) -> None:
    """In float16 a network overflows that does not in float32. Scores of NaN are an error."""
    checkpoint = load_checkpoint(tiny_model)
    with torch.no_grad():
        checkpoint.model.head.bias.fill_(math.nan)
    predictor = type(load(tiny_model, device="cpu"))(checkpoint, device="cpu", dtype="float16")
    one, two = predictor.predict_many([videos / "a.mp4", videos / "b.mp4"])
    assert "the network's answers are no numbers; take another dtype, such as float32" in str(one)
    assert "b.mp4" in str(two)
