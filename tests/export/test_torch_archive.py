"""Opening a .pt2 file runs no code of it, and any fault of it is a WeightsError of one line."""

from __future__ import annotations

import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewframes.errors import WeightsError
from fewframes.export.graphs import traced, write_torch
from fewframes.models.files.networks import build_model
from fewframes.runtime.graphs import Card, open_graph
from fewframes.runtime.torch_archive import plain_archive
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY

VIEW = ViewConfig(resize_px=36, crop_px=32)
FRAMES = np.random.default_rng(0).integers(0, 256, (1, 4, 3, 32, 32), dtype=np.uint8)
GRAPH, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS, SAMPLES = "data/constants/model_constants_config.json", "data/sample_inputs/model.pt"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sound") / "tiny.pt2"
    card = Card(
        part="whole",
        name="tiny",
        labels=LABELS,
        view=VIEW,
        num_frames=4,
        any_num_frames=True,
        precision="float32",
        task="single",
        causal=False,
        frame_width=48,
        video_width=48,
    )
    write_torch(traced(build_model(TINY, VIEW).eval(), "whole"), card, path)
    return path


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write a copy of the archive with changed entries, and with right checksums."""
    with zipfile.ZipFile(source) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{folder}/{name}", content)
    return target


def in_json(name: str, change: Callable[[Any], object]) -> Callable[[dict[str, bytes]], None]:
    def changed(entries: dict[str, bytes]) -> None:
        values = json.loads(entries[name])
        change(values)
        entries[name] = json.dumps(values).encode()

    return changed


def first_payload(values: Any) -> dict[str, Any]:
    payload: dict[str, Any] = next(iter(values["config"].values()))
    return payload


class Code:
    """An object that makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def all_expressions(value: Any, text: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str":
                value[key] = text.replace("WAS", inner)
            else:
                all_expressions(inner, text)
    elif isinstance(value, list):
        for inner in value:
            all_expressions(inner, text)


def attacks(mark: Path) -> dict[str, Callable[[dict[str, bytes]], None]]:
    pickled, run = pickle.dumps(Code(mark), 2), f"__import__('os').system('touch {mark}')"

    def node(values: Any) -> Any:
        return values["graph_module"]["graph"]["nodes"][0]

    def weight(entries: dict[str, bytes]) -> None:
        in_json(WEIGHTS, lambda v: [one.update(use_pickle=True) for one in v["config"].values()])(entries)
        entries["data/weights/weight_0"] = pickled

    def constant(name: str, **fields: Any) -> Callable[[dict[str, bytes]], None]:
        def change(entries: dict[str, bytes]) -> None:
            in_json(CONSTANTS, lambda v: first_payload(v).update(path_name=name, **fields))(entries)
            entries[f"data/constants/{name}"] = pickled

        return change

    def named(name: str) -> Callable[[dict[str, bytes]], None]:
        """Replace the name of the input everywhere. torch writes it into Python source."""

        def change(entries: dict[str, bytes]) -> None:
            entries[GRAPH] = entries[GRAPH].replace(b'"frames_btchw"', json.dumps(name).encode())

        return change

    def spec(entries: dict[str, bytes]) -> None:
        entries[GRAPH] = entries[GRAPH].replace(b"builtins.tuple", b"os.system")

    def legacy(entries: dict[str, bytes]) -> None:
        entries["data/weights/model.pt"] = pickled

    found = {
        "weight": weight,
        "pickled constant": constant("tensor_0", use_pickle=True),
        "custom object": constant("custom_obj_0"),
        "opaque object": constant("opaque_obj_0"),
        "legacy weights": legacy,
        "samples": lambda entries: entries.update({SAMPLES: pickled}),
        "expression": in_json(GRAPH, lambda v: all_expressions(v, f"{run} or WAS")),
        "attribute": in_json(GRAPH, lambda v: all_expressions(v, "().__class__.__base__.__subclasses__()")),
        "endless power": in_json(GRAPH, lambda v: all_expressions(v, "9**9**9**9")),
        "nested": in_json(GRAPH, lambda v: all_expressions(v, "(" * 900 + "1" + ")" * 900)),
        "guards": in_json(GRAPH, lambda v: v.update(guards_code=[run])),
        "name": named(f"x=({run})"),
        "spec": spec,
        "library": lambda entries: entries.update({"data/aotinductor/model/x.wrapper.so": b"\x7fELF"}),
        "other file": lambda entries: entries.update({"extra/../../x": b"x"}),
        "module": in_json(GRAPH, lambda v: v["graph_module"]["graph"].update(custom_obj_values={"a": {}})),
    }
    for target in ("torch.hub.load", "torch.load", "torch.ops.aten.from_file.default", "torch.ops.load_library",
                   "_operator.attrgetter", "torch.utils.cpp_extension.load_inline", "#x:y", "os.system", "math.pow"):  # fmt: skip
        found[target] = in_json(GRAPH, lambda v, target=target: node(v).update(target=target))  # type: ignore[misc]
    return found


@pytest.mark.parametrize("name", sorted(attacks(Path("mark"))))
def test_nothing_in_a_file_is_run(sound: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    path = rewritten(sound, tmp_path / "evil.pt2", attacks(mark)[name])
    if name in {"samples", "guards"}:  # content that a graph does not need is left out
        outputs, plain = open_graph(path)(FRAMES), open_graph(sound)(FRAMES)
        assert np.array_equal(outputs["scores"], plain["scores"])
    else:
        with pytest.raises(WeightsError, match="refused, it is not a plain graph") as caught:
            open_graph(path)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_attacks_are_real(sound: Path, tmp_path: Path) -> None:
    """torch itself runs the code in such a file, so the tests above would notice if ours did."""
    mark = tmp_path / "mark"
    path = rewritten(sound, tmp_path / "evil.pt2", attacks(mark)["weight"])
    with pytest.raises(
        (AttributeError, TypeError, RuntimeError, ValueError, AssertionError)
    ):  # an exit code is not a tensor
        torch.export.load(path)
    assert mark.exists()


def test_an_archive_that_reads_in_two_ways_is_refused(sound: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(sound) as archive:
        names = archive.namelist()
        entries = [(name, archive.read(name)) for name in names]
    with zipfile.ZipFile(tmp_path / "twice.pt2", "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(*entries[0])
    with pytest.raises(WeightsError, match="is there twice"):
        plain_archive(str(tmp_path / "twice.pt2"))
    with zipfile.ZipFile(tmp_path / "small.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match="is compressed"):
        plain_archive(str(tmp_path / "small.pt2"))


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": [{"as_int": 2**40}, {"as_int": 1}, {"as_int": 48}]},
        {"sizes": [{"as_int": -1}]},
        {"strides": [{"as_int": 2**40}] * 3},
        {"strides": []},
        {"storage_offset": {"as_int": 2**40}},
        {"dtype": 10**6},
        {"device": {"type": "cuda", "index": 0}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_shapes_that_the_file_has_no_numbers_for(sound: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    damage = in_json(WEIGHTS, lambda values: first_payload(values)["tensor_meta"].update(change))
    with pytest.raises(WeightsError, match="does not fit the bytes in the file"):
        open_graph(rewritten(sound, tmp_path / "x.pt2", damage))


def test_cut_and_flipped_files(sound: Path, tmp_path: Path) -> None:
    whole, draw = sound.read_bytes(), random.Random(0)
    path = tmp_path / "x.pt2"
    cuts = [0, 1, 3, 30, len(whole) // 2, len(whole) - 1, len(whole) - 22]
    mutants = [whole[:cut] for cut in cuts] + [whole + b"x" * 70000]
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        mutants.append(bytes(flipped))
    refused = 0
    for mutant in mutants:
        path.write_bytes(mutant)
        try:
            plain_archive(str(path))
        except WeightsError as error:
            refused += "\n" not in str(error)
    assert refused >= len(mutants) - 12  # padding, dates and the end of an archive do not change the model
    path.unlink()
    path.mkdir()
    with pytest.raises(WeightsError, match="no such file"):
        open_graph(path)


def leaves(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        leaves(inner, found)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_descriptions_with_other_values(sound: Path, tmp_path: Path, seed: int) -> None:
    """A sound archive with one changed value in its JSON is refused, or runs. It never raises an error of torch's own."""
    draw = random.Random(seed)

    def damage(values: Any) -> None:
        for holder, key in draw.sample(leaves(values, []), 2):
            holder[key] = draw.choice([None, -1, 2**70, 0.5, "x", "lambda", [], {}, True, [[]], {"as_int": 3}])

    path = rewritten(sound, tmp_path / "x.pt2", in_json(draw.choice([GRAPH, GRAPH, GRAPH, WEIGHTS, CONSTANTS]), damage))
    try:
        graph = open_graph(path)
        graph(FRAMES)
    except WeightsError as error:
        words = str(error)
    else:
        words = ""
    assert "\n" not in words
