"""`fewframes label` as a process: it tells its address, keeps every label, and stops when told to."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from fewframes.cli.main import app
from helpers.drawn_films import span, write_film


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4")


@contextmanager
def labelling(film: Path, model: Path, project: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and the address that it tells."""
    options = [
        "--project",
        str(project),
        "--model",
        str(model),
        "--cache",
        str(project.parent / "cache"),
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fewframes.cli",
            "label",
            str(film),
            *options,
            "--no-browser",
            "--device",
            "cpu",
            *words,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.findall(r"http://\S+", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_kill_loses_nothing_and_ctrl_c_stops(film: Path, tiny_model: Path, tmp_path: Path) -> None:
    project = tmp_path / "doors"
    for number, stop in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)):
        with labelling(film, tiny_model, project, "--annotator", "ann") as (process, address):
            with httpx2.Client(base_url=address, timeout=60) as client:
                state = client.get("/api/state").json()
                assert state["num_segments"] == number
                assert client.get("/api/about").json()["annotator"] == "ann"
                start_s, end_s = span(number)
                body = {"video": state["videos"][0]["id"], "start_s": start_s, "end_s": end_s, "label": "rise"}
                assert client.post("/api/segments", json=body).status_code == 200
                assert client.get("/api/state", headers={"Host": "evil.example"}).status_code == 421
            process.send_signal(stop)
            code = process.wait(60)
            assert process.stderr is not None
            said = process.stderr.read()
            assert code == (-stop if stop == signal.SIGKILL else 0)
            if stop != signal.SIGKILL:
                assert f"stopped; {number + 1} labels in {project}" in said
    assert (project / "labels.jsonl").is_file()


def test_the_labels_of_others_are_taken_in(film: Path, tiny_model: Path, tmp_path: Path) -> None:
    for name, label in (("ben", "rise"), ("eva", "cross")):
        with labelling(film, tiny_model, tmp_path / name, "--annotator", name) as (_, address):
            video = httpx2.get(f"{address}/api/state").json()["videos"][0]["id"]
            body = {"video": video, "start_s": 1.0, "end_s": 4.0, "label": label}
            httpx2.post(f"{address}/api/segments", json=body)
    merged = ("--merge", str(tmp_path / "eva" / "labels.jsonl"))
    with labelling(film, tiny_model, tmp_path / "ben", *merged) as (_, address):
        state = httpx2.get(f"{address}/api/state").json()
        assert (state["num_segments"], state["num_disagreements"]) == (2, 1)
        timeline = httpx2.get(f"{address}/api/videos/{state['videos'][0]['id']}/timeline").json()
        assert {segment["annotator"] for segment in timeline["segments"]} == {"ben", "eva"}


def test_other_machines_get_an_address_with_a_token(film: Path, tiny_model: Path, tmp_path: Path) -> None:
    with labelling(film, tiny_model, tmp_path / "doors", "--host", "0.0.0.0") as (_, address):
        port, token = re.findall(r":(\d+)/\?token=(\S+)", address)[0]
        assert httpx2.get(f"http://127.0.0.1:{port}/").status_code == 401
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as client:
            assert client.get(f"/?token={token}").status_code == 200
            assert client.get("/api/state").status_code == 200


def test_wrong_use(film: Path, tiny_model: Path, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        options = ["--model", str(tiny_model), "--project", str(tmp_path / "doors"), "--no-browser", "--device", "cpu"]
        done = CliRunner().invoke(app, ["label", *options, *words])
        return done.exit_code, done.stderr

    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for source, words in (("empty", "without videos"), ("none.mp4", "No such file"), ("broken.mp4", "not a video")):
        code, err = run(str(tmp_path / source))
        assert (code, words in err) == (1, True), err
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        began = time.monotonic()
        code, err = run(str(film), "--port", str(taken.getsockname()[1]))
    assert (code, "cannot be listened on" in err) == (2, True)
    assert time.monotonic() - began < 10  # before the model is loaded
    (tmp_path / "file").write_text("")
    code, err = run(str(film), "--port", "0", "--project", str(tmp_path / "file"))
    assert (code, "not a folder" in err) == (2, True)
    code, err = run(str(film), "--port", "0", "--merge", str(tmp_path / "none.jsonl"))
    assert (code in (1, 2), "none.jsonl" in err) == (True, True)


def test_missing_packages(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fewframes.serve.server", raising=False)
    done = CliRunner().invoke(app, ["label", str(film)])
    assert done.exit_code == 4
    assert "label needs uvicorn; pip install 'fewframes[serve]'" in done.stderr
