"""An evaluation as files: the same rows as CSV and as Parquet, whatever labels and files are called."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from fewframes.core.files import check_format
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.errors import MissingDependency
from fewframes.inference.predictor import Predictor, load
from fewframes.training.evaluation.evaluate import evaluate
from fewframes.training.evaluation.report import write_predictions
from fewframes.training.evaluation.results import Evaluation

ODD = ("error", "kick", "p\udcffsh")
"""One like a column, and one that is no text, as names of folders may be."""


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def judged(predictor: Predictor, videos: Path) -> Evaluation:
    samples = (
        Sample(path=str(videos / "a.mp4"), labels=("hug",), end_s=0.5),
        Sample(path=str(videos / "b.mp4"), labels=("kick",)),
        Sample(path="n\udcffne.mp4", labels=("push",)),
    )
    return evaluate(VideoSet(samples, "three"), predictor, None)


def test_csv_and_parquet_say_the_same(judged: Evaluation, videos: Path, tmp_path: Path) -> None:
    write_predictions(judged, ODD, tmp_path / "table.csv")
    write_predictions(judged, ODD, tmp_path / "table.parquet")
    with (tmp_path / "table.csv").open(errors="surrogateescape", newline="") as file:
        written = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "table.parquet")
    rows = table.to_pylist()
    names = ["source", "start_s", "end_s", "labels", "predicted", "score", "error", "score_error", "kick", "p?sh"]
    assert table.column_names == names
    assert {str(table.schema.field(name).type) for name in ("start_s", "score", "kick")} == {"double"}
    assert [row["source"] for row in rows] == [str(videos / "a.mp4"), str(videos / "b.mp4"), "n?ne.mp4"]
    assert (rows[0]["end_s"], rows[1]["end_s"], rows[2]["score"]) == (0.5, None, None)
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    for row, line, scores_K in zip(rows, written, judged.scores, strict=False):
        assert float(line["kick"]) == pytest.approx(row["kick"], abs=1e-6)
        assert [row["score_error"], row["kick"], row["p?sh"]] == pytest.approx(scores_K.tolist())
        assert row["score"] == pytest.approx(float(scores_K.max()))
        assert line["predicted"].encode(errors="replace").decode() == row["predicted"]
    assert written[2]["score"] == written[2]["kick"] == ""
    assert np.allclose(judged.scores.sum(axis=1), 1)


def test_parquet_without_pyarrow_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_format("csv")
    with pytest.raises(MissingDependency, match=r"pip install 'fewframes\[parquet\]'") as caught:
        check_format("parquet")
    assert caught.value.exit_code == 4
