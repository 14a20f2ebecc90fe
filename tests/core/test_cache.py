"""The cache returns the arrays that were put in, and nothing else."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from fewframes.core import cache
from fewframes.core.cache import EmbeddingCache, arrays_key, content_key, key_of


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


def some(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("array", [some(2, 16, 7), some(16, 2, 7).transpose(1, 0, 2), some(0, 7)])
def test_found_again_bit_for_bit(store: EmbeddingCache, array: NDArray[np.float32]) -> None:
    assert store.get("ab12") is None
    store.put("ab12", array)
    found = store.get("ab12")
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, array)
    assert (store.num_found, store.num_damaged) == (1, 0)


def test_damage_is_noticed_and_counted(store: EmbeddingCache) -> None:
    store.put("ab12", some(50))
    (path,) = store.folder.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    assert store.get("ab12") is None
    path.write_bytes(content[: len(content) // 2])
    assert store.get("ab12") is None
    path.write_bytes(b"")
    assert store.get("ab12") is None
    save_file({"others": np.zeros(2, np.float32)}, path)
    assert store.get("ab12") is None
    save_file({"embeddings": np.zeros(2, np.float32)}, path)  # no checksum
    assert store.get("ab12") is None
    assert (store.num_found, store.num_damaged) == (0, 5)


def test_an_interrupted_write_leaves_nothing_behind_that_is_read(
    store: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.put("ab12", some(5))
    assert store.get("ab12") is None


def test_content_not_name_makes_the_key(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"two")
    assert content_key(str(tmp_path / "a")) == content_key(str(tmp_path / "b")) != content_key(str(tmp_path / "c"))


def test_large_files_are_sampled_over_their_whole_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(cache, "SPOT_BYTES", 64)
    path = tmp_path / "large"
    keys = set()
    for index in (0, 50_000, 99_999, None):
        content = bytearray(100_000)
        if index is not None:
            content[index] = 1
        path.write_bytes(content)
        keys.add(content_key(str(path)))
    path.write_bytes(bytes(100_001))
    keys.add(content_key(str(path)))
    assert len(keys) >= 4  # the first byte, the last byte and the length always count; between them 64 spots do


def test_folder_of_images_is_keyed_by_its_files(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(name.encode())
    before = content_key(str(tmp_path))
    (tmp_path / "2.png").write_bytes(b"other")
    assert content_key(str(tmp_path)) != before


def test_names_types_shapes_and_numbers_make_the_key_of_arrays() -> None:
    arrays = {"weight": some(3, 4), "bias": some(4)}
    key = arrays_key(arrays)
    assert arrays_key(dict(reversed(arrays.items()))) == key
    changed = arrays["weight"].copy()
    changed[0, 0] += 1
    others: list[dict[str, NDArray[Any]]] = [
        {**arrays, "weight": changed},
        {**arrays, "weight": arrays["weight"].astype(np.float16)},
        {**arrays, "weight": arrays["weight"].reshape(4, 3)},
        {"weights": arrays["weight"], "bias": arrays["bias"]},
        {"weight": arrays["weight"]},
    ]
    assert len({key, *map(arrays_key, others)}) == 6


def test_keys_depend_on_every_part() -> None:
    assert len({key_of("a", "b"), key_of("ab"), key_of({"a": 1}), key_of({"a": 2}), key_of("b", "a")}) == 5


@pytest.mark.parametrize("kind", ["file", "below a file", "full"])
def test_a_folder_that_takes_nothing_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "file").write_text("mine")
    folder = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "cache", "full": tmp_path / "full"}[kind]
    if kind == "full":

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    store = EmbeddingCache(folder)
    assert store.get("ab12") is None
    assert [store.put_or_warn(f"ab{number}", np.zeros(2, np.float32)) for number in range(5)] == [False] * 5
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{folder}: frame embeddings are not cached (")
    assert store.num_damaged == 0
    assert (tmp_path / "file").read_text() == "mine"


def test_two_writers_of_one_key(tmp_path: Path) -> None:
    """The last writer wins, and no reader ever sees a part of a file."""
    stores = [EmbeddingCache(tmp_path) for _ in range(4)]
    arrays = [np.full(1000, number, np.float32) for number in range(4)]
    seen = []

    def work(number: int) -> None:
        for _ in range(50):
            stores[number].put("ab12", arrays[number])
            seen.append(stores[number].get("ab12"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert all(found is not None and len(np.unique(found)) == 1 for found in seen)
    assert [store.num_damaged for store in stores] == [0] * 4
    assert len(list(tmp_path.rglob("*.*"))) == 1


def test_a_folder_of_images_has_the_key_of_their_order(tmp_path: Path) -> None:
    """Folders of the same three pictures have one key only if their names put the pictures in the same order."""
    for folder, names in (("a", ("1", "2", "10")), ("b", ("01", "02", "10")), ("c", ("1", "10", "2"))):
        (tmp_path / folder).mkdir()
        for content, name in zip((b"A", b"B", b"C"), names, strict=True):
            (tmp_path / folder / f"{name}.png").write_bytes(content)
    assert content_key(str(tmp_path / "a")) == content_key(str(tmp_path / "b")) != content_key(str(tmp_path / "c"))
