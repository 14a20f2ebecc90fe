"""Embeddings in files: the numbers that predictions have, failures named, nothing half written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from safetensors import safe_open

from fewframes.batch import embeddings as room
from fewframes.batch.embeddings import check_embedding_file, write_embeddings
from fewframes.errors import ConfigError, DataError, MissingDependency
from fewframes.inference.predictor import Predictor, load
from fewframes.results import Failure, Prediction

MISSING = Failure("n\udcffne.mp4", "n\udcffne.mp4: no such file", missing=True)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def answers(tiny: Predictor, videos: Path) -> list[Prediction]:
    return [tiny.predict(videos / name) for name in ("a.mp4", "b.mp4", "sub/c.mp4")]


@pytest.mark.parametrize("row_values", [1, room.ROW_VALUES])
def test_parquet_has_a_row_for_each_video(
    tiny: Predictor, answers: list[Prediction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_values: int
) -> None:
    monkeypatch.setattr(room, "ROW_VALUES", row_values)  # 1: each row is written by itself
    path = tmp_path / "out.parquet"
    written = write_embeddings([answers[0], MISSING, *answers[1:]], path, tiny, per_frame=True)
    assert (written.num_videos, written.failures) == (3, (MISSING,))
    table = parquet.read_table(path)
    rows = table.to_pylist()
    assert parquet.ParquetFile(path).num_row_groups == (3 if row_values == 1 else 1)
    names = ["source", "label", "score", "times_s", "embedding", "frame_embeddings", "error"]
    assert table.column_names == names
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<element: float>[48]")
    for row, answer in zip((rows[0], rows[2], rows[3]), answers, strict=True):
        assert (row["source"], row["error"]) == (answer.source, None)
        assert (row["label"], row["score"]) == pytest.approx(tuple(answer.top(1)[0]))
        assert row["times_s"] == answer.times_s.tolist()
        assert row["embedding"] == answer.embedding.tolist()
        assert row["frame_embeddings"] == answer.frame_embeddings.tolist()
    assert rows[1] == dict.fromkeys(names) | {"source": "n?ne.mp4", "error": "n?ne.mp4: no such file"}
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert about["weights"] == tiny.runtime.model_key()
    assert json.loads(about["labels"]) == ["hug", "kick", "push"]


def test_safetensors_has_tensors_of_all_videos(tiny: Predictor, answers: list[Prediction], tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    write_embeddings([MISSING, *answers], path, tiny, per_frame=True)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        about = file.metadata()
    for name, wanted in {
        "embedding": [answer.embedding for answer in answers],
        "frame_embeddings": [answer.frame_embeddings for answer in answers],
        "times_s": [answer.times_s for answer in answers],
        "score": [answer.scores.max() for answer in answers],
        "label": [answer.scores.argmax() for answer in answers],
    }.items():
        np.testing.assert_array_equal(tensors.pop(name), np.stack(wanted))
    assert not tensors
    assert json.loads(about["sources"]) == [answer.source for answer in answers]
    assert json.loads(about["failures"]) == [{"source": "n?ne.mp4", "error": "n?ne.mp4: no such file"}]
    write_embeddings(answers, path, tiny)
    with safe_open(path, framework="numpy") as file:
        assert sorted(file.keys()) == ["embedding", "label", "score", "times_s"]


@pytest.mark.parametrize("ending", [".parquet", ".safetensors"])
def test_a_former_file_stays_until_the_new_one_is_whole(
    tiny: Predictor, answers: list[Prediction], tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"out{ending}"
    path.write_text("former")

    def interrupted() -> Iterator[Prediction]:
        yield answers[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_embeddings(interrupted(), path, tiny)
    with pytest.raises(
        DataError, match="not written, because none of 1 video could be read; the first: n.ne.mp4: no such file"
    ):
        write_embeddings([MISSING], path, tiny)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_embeddings(answers, tmp_path / "none" / f"out{ending}", tiny)


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"out\.npz: embeddings are written as \.parquet or \.safetensors"):
        check_embedding_file(Path("out.npz"))
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(ConfigError, match="name a file with one of these endings"):
        check_embedding_file(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_embedding_file(Path("out.safetensors"))
    with pytest.raises(MissingDependency, match=r"pip install 'fewframes\[parquet\]'"):
        check_embedding_file(Path("out.parquet"))


@pytest.mark.parametrize("ending", [".parquet", ".safetensors"])
def test_a_link_stays_a_link_and_a_pipe_is_refused(
    tiny: Predictor, answers: list[Prediction], tmp_path: Path, ending: str
) -> None:
    link, target = tmp_path / f"link{ending}", tmp_path / "disk" / f"all{ending}"
    target.parent.mkdir()
    link.symlink_to(target)
    write_embeddings(answers, link, tiny)
    assert link.is_symlink()
    assert target.is_file()
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]
    os.mkfifo(tmp_path / f"pipe{ending}")
    with pytest.raises(ConfigError, match="written as .parquet or .safetensors files"):
        check_embedding_file(tmp_path / f"pipe{ending}")
