"""Models shared through a hub: pushed with a card, pulled, used offline, and refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fewframes
from fewframes.cli.main import app
from fewframes.errors import ConfigError, WeightsError
from fewframes.models.files.model_file import read_model_file, write_model_file
from fewframes.models.files.names import find_model, pulled_path
from fewframes.models.sharing.hub import Upload, pull_model, push
from helpers.heads import solved_head
from helpers.mirror import TOKEN, Mirror, Repository, mirror

pytest.importorskip("huggingface_hub")
# The client sends a file in a way that its package for requests has given up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
HUG = Path(__file__).resolve().parents[3] / "examples" / "hug.mp4"
NAME = "some-one/doors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    # The mirror takes files as Git LFS does; a client that has hf_xet would ask for its own protocol.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
    with mirror() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
        yield found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder of training whose record has paths of the machine."""
    file = replace(
        solved_head(1, 3),
        provenance={
            "data": "/home/anna/My Clips/list.csv",
            "num_videos": {"training": 3},
            "training_videos": ["0123456789ab", "ba9876543210"],
            "run": {"data": {"background": ["s3://key:secret@bucket/street.mp4?token=x"]}},
        },
        metrics={"protocol": "each of 3 groups of /home/anna/My Clips/list.csv", "top1": 0.75, "num_videos": 4},
        licences={"code": "Apache-2.0", "data": "none stated"},
    )
    folder = tmp_path / "run"
    write_model_file(folder / "model.safetensors", file)
    interval = {"value": 0.75, "low": 0.5, "high": 0.9, "num_groups": 3}
    (folder / "metrics.json").write_text(json.dumps({"left_out": {"interval": interval}}))
    return folder


def test_a_model_goes_to_the_hub_and_comes_back(hub: Mirror, model: Path) -> None:
    address = push(str(model), NAME, private=True)
    assert address.startswith(f"{hub.address}/{NAME}/commit/")
    assert hub.repositories[NAME].private
    stored = hub.repositories[NAME].versions[-1]
    assert set(stored) == {"README.md", "model.safetensors"}

    path = pull_model(NAME)
    assert path == pulled_path(NAME)
    assert json.loads(path.with_suffix(".json").read_text()) == {"repository": NAME, "commit": Repository.sha(0)}
    before = fewframes.load(model, runtime="onnxruntime").predict(HUG)
    num_requests = len(hub.requests)
    after = fewframes.load(NAME, runtime="onnxruntime").predict(HUG)
    assert len(hub.requests) == num_requests  # the local copy is enough
    assert after.scores.tolist() == before.scores.tolist()
    assert after.labels == before.labels


def test_nothing_of_this_machine_is_told(hub: Mirror, model: Path) -> None:
    seen: list[Upload] = []
    push(str(model), NAME, confirm=lambda upload: not seen.append(upload))  # type: ignore[func-returns-value]
    stored = hub.repositories[NAME].versions[-1]
    for content in stored.values():
        assert not any(word in content for word in (b"anna", b"My Clips", b"secret", b"token=", b"s3:"))
    card = stored["README.md"].decode()
    assert "each of 3 groups of list.csv" in card
    pulled = read_model_file(pull_model(NAME))
    assert pulled.provenance["data"] == "list.csv"
    assert pulled.provenance["run"]["data"]["background"] == ["street.mp4"]
    assert pulled.provenance["training_videos"] == ["0123456789ab", "ba9876543210"]
    assert seen[0].num_marks == 2
    assert "/home/anna/My Clips/list.csv" in seen[0].shortened
    assert read_model_file(model / "model.safetensors").provenance["data"] == "/home/anna/My Clips/list.csv"


def test_the_card_is_made_from_the_header(hub: Mirror, model: Path) -> None:
    push(str(model), NAME)
    card = hub.repositories[NAME].versions[-1]["README.md"].decode()
    front = card.split("---")[1]
    assert "library_name: fewframes\npipeline_tag: video-classification\n" in front
    assert 'license: "other"' in front
    assert "datasets" not in front
    for words in (
        "# doors",
        f"fewframes models pull {NAME}",
        "`action 1.0`, `action 1.1`, `action 1.2`.",
        "Right: 75.0% (95 % interval 50.0% to 90.0% over 3 groups) of 4 videos.",
        "- data: none stated",
        "- videos: 3 training",
        "16 of its frames",
    ):
        assert words in card
    push(str(model), NAME, licence="mit")
    assert 'license: "mit"' in hub.repositories[NAME].versions[-1]["README.md"].decode()
    assert len(hub.repositories[NAME].versions) == 2
    with pytest.raises(ConfigError, match='refuses the card .*"license" must be one of'):
        push(str(model), NAME, licence="nonsense")


def test_a_revision_has_a_copy_of_its_own(hub: Mirror, model: Path, tmp_path: Path) -> None:
    push(str(model), NAME)
    write_model_file(tmp_path / "new.safetensors", solved_head(7, 2))
    push(str(tmp_path / "new.safetensors"), NAME)
    old = f"{NAME}@{Repository.sha(0)}"
    pull_model(old)
    pull_model(NAME)
    assert len(read_model_file(find_model(old)).labels) == 3
    assert len(read_model_file(find_model(NAME)).labels) == 2
    with pytest.raises(WeightsError, match="no such revision"):
        pull_model(f"{NAME}@nothing")


def test_a_copy_that_was_changed_is_refused(hub: Mirror, model: Path) -> None:
    push(str(model), NAME)
    path = pull_model(NAME)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(WeightsError, match=f"SHA-256 differs or is missing.*models pull {NAME}"):
        fewframes.load(NAME)
    pull_model(NAME)
    fewframes.load(NAME, runtime="onnxruntime")
    hub.wrong_digest = True
    with pytest.raises(WeightsError, match="another SHA-256 than the hub says"):
        pull_model(NAME)
    fewframes.load(NAME, runtime="onnxruntime")  # the one before is still there


def test_what_is_not_ours_is_neither_pulled_nor_overwritten(hub: Mirror, model: Path) -> None:
    ours = (model / "model.safetensors").read_bytes()
    others = {
        "a/no-card": {"model.safetensors": ours},
        "a/other": {"model.safetensors": ours, "README.md": b"---\nlibrary_name: transformers\n---\n"},
        "a/empty-card": {"README.md": b"---\nlibrary_name: fewframes\n---\n"},
    }
    for name, files in others.items():
        hub.repositories[name] = Repository()
        hub.repositories[name].commit(files)
        with pytest.raises(WeightsError, match=f"{name}: not a fewframes model"):
            pull_model(name)
    for name in ("a/no-card", "a/other"):
        with pytest.raises(WeightsError, match="holds something else"):
            push(str(model), name)
        assert len(hub.repositories[name].versions) == 1
    hub.repositories["a/more"] = Repository()
    hub.repositories["a/more"].commit({"config.json": b"{}"})
    with pytest.raises(WeightsError, match=r"holds something else \(config\.json\)"):
        push(str(model), "a/more")
    push(str(model), "a/empty-card")


def test_a_damaged_or_foreign_file_is_not_stored(hub: Mirror) -> None:
    hub.repositories["a/bad"] = Repository()
    hub.repositories["a/bad"].commit(
        {"model.safetensors": b"junk", "README.md": b"---\nlibrary_name: fewframes\n---\n"}
    )
    with pytest.raises(WeightsError, match="not a fewframes model"):
        pull_model("a/bad")
    assert not pulled_path("a/bad").exists()


def test_refusals_have_a_reason_and_never_the_token(hub: Mirror, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(str(model), NAME)
    for name, words in (
        ("a/b", "no such model, or a private one"),
        ("x", "needs OWNER/NAME"),
        ("a/b/c", "needs OWNER/NAME"),
    ):
        with pytest.raises((WeightsError, ConfigError), match=words):
            pull_model(name)
    hub.repositories[NAME].gated = True
    with pytest.raises(WeightsError, match="grants access one by one"):
        pull_model(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(WeightsError, match=r"(HTTP 401|no such model)") as refused:
        push(str(model), "a/new")
    assert "hf_" not in str(refused.value)
    hub.answers = 403
    with pytest.raises(WeightsError, match="HTTP 403"):
        pull_model(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="cannot be reached"):
        pull_model(NAME)
    with pytest.raises(WeightsError, match=f"no model of that name was pulled.*models pull {NAME}"):
        fewframes.load(NAME)
    with pytest.raises(ConfigError, match="exported graph"):
        push("x.onnx", NAME)


def run(*arguments: object, answer: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["models", *map(str, arguments)], input=answer)
    return done.exit_code, done.stderr


def test_the_command_shows_what_it_uploads_and_asks(hub: Mirror, model: Path) -> None:
    code, err = run("push", model, NAME)
    assert (code, NAME in hub.repositories) == (2, False)
    assert "add --yes" in err
    code, err = run("push", model, NAME, "--private", "--yes")
    assert code == 0, err
    for words in (
        "a new repository, private",
        "model.safetensors, ",
        "left out of the record: /home/anna",
        "2 training videos",
    ):
        assert words in err
    assert "uploaded: " in err
    assert TOKEN not in err
    code, err = run("pull", NAME)
    assert code == 0, err
    assert f"--model {NAME}" in err
    code, err = run("pull", NAME, "--file", model / "model.safetensors")
    assert (code, "is for presets" in err) == (2, True)
    done = CliRunner().invoke(app, ["predict", str(HUG), "--model", NAME, "--json"])
    assert json.loads(done.stdout)["top"][0]["label"].startswith("action 1")
