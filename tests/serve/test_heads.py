"""A server with several models: it answers for all of them, or for the one that a request names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from numpy.testing import assert_allclose
from starlette.testclient import TestClient

from fewframes.inference.heads import Heads, load_heads
from fewframes.inference.timeline import TimelineConfig
from fewframes.serve.app import create_app
from fewframes.serve.config import ServeConfig
from helpers.heads import write_heads
from helpers.served import send, told

NEAR = 1e-5


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Heads:
    return load_heads(write_heads(tmp_path_factory.mktemp("heads")), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def client(heads: Heads) -> Iterator[TestClient]:
    with TestClient(create_app(heads, ServeConfig())) as client:
        yield client


def test_about_lists_the_models(client: TestClient, heads: Heads) -> None:
    about = client.get("/v1/about").json()
    assert [model["name"] for model in about["models"]] == list(heads.names)
    assert about["models"][2]["labels"] == ["action 3.0", "action 3.1"]
    assert about["model"] == heads.names[0]


def test_all_models_answer_from_one_pass(client: TestClient, heads: Heads, videos: Path) -> None:
    before = _frames(client)
    answers = send(client, "/v1/predict", videos / "a.mp4", topk=2).json()["answers"]
    assert _frames(client) - before == heads.num_frames
    for answer, truth in zip(answers, heads.predict(videos / "a.mp4"), strict=True):
        assert answer["model"] == truth.model
        assert [entry["label"] for entry in answer["top"]] == [label for label, _ in truth.top(2)]
        assert_allclose([entry["score"] for entry in answer["top"]], [score for _, score in truth.top(2)], atol=NEAR)
    embedded = send(client, "/v1/embed", videos / "a.mp4", per_frame="true").json()["answers"]
    assert [answer["model"] for answer in embedded] == list(heads.names)
    assert embedded[0]["frame_embeddings"] == embedded[3]["frame_embeddings"]
    assert embedded[0]["embedding"] != embedded[3]["embedding"]


def test_the_model_that_a_request_names_answers_alone(client: TestClient, heads: Heads, videos: Path) -> None:
    name = heads.names[1]
    truth = heads[name].predict(videos / "a.mp4")
    before = _frames(client)
    answer = send(client, "/v1/predict", videos / "a.mp4", model=name, explain="true", pictures="true").json()
    assert_allclose(answer["top"][0]["score"], truth.top(1)[0].score, atol=NEAR)
    assert answer["top"][0]["label"] == truth.top(1)[0].label
    assert "explanation" in answer
    assert _frames(client) > before  # its frames go through the rounds of all requests
    alone = send(client, "/v1/timeline", videos / "a.mp4", model=name, window_s=0.5).json()
    assert "model" not in alone
    assert len(alone["times_s"]) > heads.num_frames


def test_timelines_with_progress(client: TestClient, heads: Heads, videos: Path) -> None:
    lines = send(client, "/v1/timeline", videos / "a.mp4", window_s=0.5, threshold=0.2, progress="true").text
    *progress, last = [json.loads(line) for line in lines.splitlines()]
    assert progress[-1]["progress"]["done"] == len(last["result"]["answers"][0]["times_s"])
    truth = heads.timeline(videos / "a.mp4", TimelineConfig(window_s=0.5, threshold=0.2))
    for answer, own in zip(last["result"]["answers"], truth, strict=True):
        assert answer["model"] == own.model
        assert [span["label"] for span in answer["spans"]] == [span.label for span in own.spans]


def test_wrong_names_and_what_is_of_one_model(client: TestClient, videos: Path) -> None:
    assert told(send(client, "/v1/predict", videos / "a.mp4", model="x"))[0] == 422
    status, words = told(send(client, "/v1/predict", videos / "a.mp4", explain="true"))
    assert (status, "explain is of one model" in words) == (422, True)


def test_a_server_of_one_model_takes_its_own_name_only(client: TestClient, heads: Heads, videos: Path) -> None:
    with TestClient(create_app(heads.predictors[0], ServeConfig())) as one:
        assert "models" not in one.get("/v1/about").json()
        assert "answers" not in send(one, "/v1/predict", videos / "a.mp4", model=heads.names[0]).json()
        status, words = told(send(one, "/v1/predict", videos / "a.mp4", model=heads.names[1]))
    assert (status, "this server has" in words) == (422, True)


def _frames(client: TestClient) -> int:
    """The number of frames that the server has embedded so far."""
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("fewframes_frames_embedded_total "))))
