"""Agents ask over the Model Context Protocol, with the client of its own package: answers, limits, roots and teaching."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent

from fewframes.cli.mcp import open_index, teach_clips
from fewframes.errors import ConfigError, Refusal
from fewframes.inference.counting.count import count_repetitions
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import sweep
from fewframes.search.index import Index
from fewframes.serve.config import ServeConfig
from fewframes.serve.mcp.arguments import AboutArguments
from fewframes.serve.mcp.models import ServedModels
from fewframes.serve.mcp.roots import Roots
from fewframes.serve.mcp.server import create_server
from fewframes.serve.mcp.tools import Tool, VideoTools
from fewframes.serve.service import Service
from fewframes.serve.tasks import RequestTask, gone
from helpers.numbered import Numbered, drifting, write_fading
from helpers.served import until

T = TypeVar("T")
Mode = Literal["legacy", "auto"]


@pytest.fixture
def services() -> Iterator[list[Service]]:
    """The services that a test has started."""
    started: list[Service] = []
    yield started
    for service in started:
        service.close()


@pytest.fixture
def serving(predictor: Predictor, tiny_model: Path, services: list[Service]) -> Callable[..., Any]:
    """Makes a server of the tiny model with settings of its own."""

    def make(*roots: Path, index: Index | None = None, taught: Path | None = None, **settings: Any) -> Any:
        config = ServeConfig(**settings)
        services.append(Service(predictor, config))
        models = ServedModels(services[-1], config, taught, partial(load, device="cpu", dtype="float32"))
        teacher = partial(teach_clips, start=str(tiny_model), device="cpu", dtype="float32")
        tools = VideoTools(models, Roots(roots, config.max_bytes), config, index, taught, teacher)
        return create_server(tools.by_name(), services[-1])

    return make


def with_client(server: Any, use: Callable[[Client], Awaitable[T]], mode: Mode = "auto") -> T:
    async def connected() -> T:
        async with Client(server, mode=mode, raise_exceptions=True) as client:
            return await use(client)

    return asyncio.run(connected())


def ask(server: Any, tool: str, mode: Mode = "auto", /, **arguments: object) -> CallToolResult:
    return with_client(server, lambda client: client.call_tool(tool, arguments), mode)


def values(answer: CallToolResult) -> Any:
    assert not answer.is_error, answer
    assert isinstance(answer.content[0], TextContent)
    assert json.loads(answer.content[0].text) == answer.structured_content
    return answer.structured_content


def refusal(answer: CallToolResult) -> str:
    assert answer.is_error, answer
    assert isinstance(answer.content[0], TextContent)
    return answer.content[0].text


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_answers_are_those_of_the_predictor(
    serving: Callable[..., Any], predictor: Predictor, videos: Path, mode: Mode
) -> None:
    server = serving(videos)
    found = values(ask(server, "predict", mode, path="a.mp4", topk=2, start_s=0.1))
    truth = predictor.predict(videos / "a.mp4", start_s=0.1)
    assert [entry["label"] for entry in found["top"]] == [label for label, _ in truth.top(2)]
    assert found["top"][0]["score"] == pytest.approx(truth.top(1)[0].score, abs=1e-5)
    whole = values(ask(server, "timeline", mode, path=str(videos / "sub" / "c.mp4")))
    assert whole["spans"] == sweep(predictor, videos / "sub" / "c.mp4").to_dict()["spans"]
    counted = values(ask(server, "count", mode, path="sub/c.mp4"))
    assert counted["count"] == count_repetitions(predictor, videos / "sub" / "c.mp4").count
    assert counted["source"] == "sub/c.mp4"


def test_tools_say_what_they_do_take_and_change(serving: Callable[..., Any], videos: Path, tmp_path: Path) -> None:
    reading = with_client(serving(videos), lambda client: client.list_tools()).tools
    assert [tool.name for tool in reading] == ["about", "videos", "predict", "timeline", "count"]
    for tool in reading:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert tool.annotations.destructive_hint is False
        assert tool.input_schema["additionalProperties"] is False
        assert all(entry["description"] for entry in tool.input_schema.get("properties", {}).values())
    writing = with_client(serving(videos, taught=tmp_path), lambda client: client.list_tools()).tools[-1]
    assert writing.name == "teach"
    assert writing.annotations is not None
    assert (writing.annotations.read_only_hint, writing.annotations.destructive_hint) == (False, True)


def test_about_says_what_is_known_and_allowed(serving: Callable[..., Any], predictor: Predictor, videos: Path) -> None:
    found = values(ask(serving(videos, max_seconds=9.0), "about"))
    assert found["models"] == {predictor.name: list(predictor.labels)}
    assert found["roots"] == [str(videos.resolve())]
    assert found["limits"]["max_seconds"] == 9.0
    assert found["may_teach"] is False
    assert found["index"] is None


@pytest.mark.parametrize(
    "path", ["../secret.mp4", "/etc/passwd", "link.mp4", "sub/../../secret.mp4", "linked/secret.mp4", "a\0.mp4"]
)
def test_nothing_outside_of_the_roots_is_read(serving: Callable[..., Any], tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    Numbered(times_ms=range(0, 400, 40)).write(tmp_path / "secret")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "linked").symlink_to(tmp_path)
    server = serving(root, taught=tmp_path / "taught")
    assert values(ask(server, "videos"))["videos"] == []
    words = "not a path" if "\0" in path else "outside"
    assert words in refusal(ask(server, "predict", path=path))
    assert words in refusal(ask(server, "teach", name="new", yes={"x": [{"path": path}]}))
    assert not (tmp_path / "taught").exists()


def test_videos_below_several_roots(serving: Callable[..., Any], videos: Path, tmp_path: Path) -> None:
    write_fading(tmp_path / "other.mp4", 16, turned=False)
    (tmp_path / "notes.txt").write_text("no video")
    server = serving(videos, tmp_path)
    found = values(ask(server, "videos"))
    names = ["a.mp4", "b.mp4", "c.mp4", "other.mp4"]
    assert [os.path.basename(entry["path"]) for entry in found["videos"]] == names
    assert found["not_listed"] == 0
    few = values(ask(server, "videos", most=1))
    assert (len(few["videos"]), few["not_listed"]) == (1, 3)
    assert len(values(ask(server, "videos", folder="sub"))["videos"]) == 1
    assert "no such folder" in refusal(ask(server, "videos", folder="nothing"))
    assert "outside" in refusal(ask(server, "videos", folder="/"))
    for name in ("other.mp4", str(videos / "a.mp4")):
        assert values(ask(server, "predict", path=name))["source"] == name


def test_errors_have_the_words_of_the_product(serving: Callable[..., Any], clips: Path) -> None:
    server = serving(clips, max_seconds=0.7, max_mb=1.0)
    assert "no such file" in refusal(ask(server, "predict", path="missing.mp4"))
    assert "not a video" in refusal(ask(server, "predict", path="redden/broken.mp4"))
    assert "the limit is 0.7 s" in refusal(ask(server, "timeline", path="redden/5.mp4"))
    assert "did you mean 'path'" in refusal(ask(server, "predict", pth="redden/0.mp4"))
    assert "topk = 0" in refusal(ask(server, "predict", path="redden/0.mp4", topk=0))
    assert "topk = '3'" in refusal(ask(server, "predict", path="redden/0.mp4", topk="3"))
    assert "did you mean 'predict'" in refusal(ask(server, "predicts", path="redden/0.mp4"))
    assert "no model 'x'" in refusal(ask(server, "predict", path="redden/0.mp4", model="x"))
    assert "no tool 'search'" in refusal(ask(server, "search", label="redden"))
    assert "larger than the limit" in refusal(ask(serving(clips, max_mb=0.0001), "predict", path="redden/0.mp4"))
    with pytest.raises(ConfigError, match="--root .*no such folder"):
        Roots([clips / "nothing"], 1)


def test_a_bad_video_can_be_in_no_other_call(serving: Callable[..., Any], predictor: Predictor, clips: Path) -> None:
    names = ["redden/0.mp4", "redden/broken.mp4", "turn blue/0.mp4", "redden/1.mp4"] * 3

    async def at_once(client: Client) -> list[CallToolResult]:
        return await asyncio.gather(*(client.call_tool("predict", {"path": name}) for name in names))

    for name, answer in zip(names, with_client(serving(clips, workers=3), at_once), strict=True):
        if name.endswith("broken.mp4"):
            assert "not a video" in refusal(answer)
        else:
            truth = predictor.predict(clips / name).top(1)[0]
            assert values(answer)["top"][0]["score"] == pytest.approx(truth.score, abs=1e-5)


def test_progress_of_a_long_video_increases(serving: Callable[..., Any], tmp_path: Path) -> None:
    drifting(tmp_path / "film.mp4", "libx264", 300, gop=25, options={})
    told: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))

    found = with_client(
        serving(tmp_path),
        lambda client: client.call_tool("count", {"path": "film.mp4"}, progress_callback=on_progress),
        "legacy",
    )
    assert values(found)["frames"]["missing"] == 0
    assert len(told) >= 2
    assert all(before[0] < after[0] for before, after in zip(told, told[1:], strict=False))
    assert told[-1][0] == told[-1][1]


def waiting(began: threading.Event, ended: threading.Event) -> Tool:
    """A tool that works until its call is ended."""

    def run(_: AboutArguments, task: RequestTask, __: Any) -> dict[str, object]:
        began.set()
        until(lambda: not task.left_s)
        ended.set()
        return {}

    return Tool("Wait.", AboutArguments, run)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_cancelled_call_stops_working_and_the_next_is_answered(
    predictor: Predictor, services: list[Service], mode: Mode
) -> None:
    began, ended = threading.Event(), threading.Event()
    service = Service(predictor, ServeConfig(workers=1, max_waiting=0))
    services.append(service)
    quick = Tool("Answer.", AboutArguments, lambda arguments, task, progress: {"answer": 1})
    server = create_server({"wait": waiting(began, ended), "quick": quick}, service)

    async def cancelled(client: Client) -> CallToolResult:
        calling = asyncio.create_task(client.call_tool("wait", {}))
        assert await asyncio.to_thread(began.wait, 20)
        assert "the limit of this server" in refusal(await client.call_tool("quick", {}))
        calling.cancel()
        assert await asyncio.to_thread(ended.wait, 20)
        await asyncio.to_thread(until, lambda: not service.num_inside)
        return await client.call_tool("quick", {})

    assert values(with_client(server, cancelled, mode)) == {"answer": 1}


def test_a_call_ends_in_time(predictor: Predictor, services: list[Service]) -> None:
    service = Service(predictor, ServeConfig(timeout_s=0.2))
    services.append(service)
    began, ended = threading.Event(), threading.Event()
    assert "not done after 0.2 s" in refusal(ask(create_server({"wait": waiting(began, ended)}, service), "wait"))
    assert ended.wait(20)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, clips: Path) -> Path:
    """An index of the clips."""
    folder = tmp_path_factory.mktemp("index") / "moments"
    made = Index.open(folder, load(tiny_model, device="cpu", dtype="float32"), window_s=1.0, hop_s=0.5)
    made.add(sorted(clips.glob("*/[0-9].mp4")))
    return folder


def test_search_by_video_result_and_label(serving: Callable[..., Any], index: Path, clips: Path) -> None:
    config = ServeConfig()
    opened = open_index(str(index), config, device="cpu", dtype="float32", runtime="auto")
    server = serving(clips, index=opened)
    found = values(ask(server, "search", path="redden/0.mp4", num=3))
    truth = opened.search(opened.moment(clips / "redden" / "0.mp4"), num=3)
    assert found == {"moments": [hit.to_dict() for hit in truth], "searched": opened.num_rows}
    assert len(found["moments"]) == 3
    like = values(ask(server, "search", like=found["moments"][0]["id"], num=2))["moments"]
    assert like
    assert all(hit["id"] != found["moments"][0]["id"] for hit in like)
    label = values(ask(server, "about"))["index"]["labels"][0]
    assert all(hit["label"] == label for hit in values(ask(server, "search", label=label))["moments"])
    assert "nothing is searched for" in refusal(ask(server, "search"))
    kept = values(ask(server, "search", label=label, path="redden/0.mp4"))["moments"]
    assert {hit["label"] for hit in kept} == {label}
    assert "knows no words" in refusal(ask(server, "search", text="a red circle"))
    assert "path and like exclude each other" in refusal(ask(server, "search", path="redden/0.mp4", like="x"))
    assert "not a label of the model" in refusal(ask(server, "search", label="moonwalk"))
    assert "no such row" in refusal(ask(server, "search", like="x"))
    assert "outside" in refusal(ask(server, "search", path="/etc/passwd"))


def test_a_model_is_taught_and_answers_at_once(serving: Callable[..., Any], clips: Path, tmp_path: Path) -> None:
    server = serving(clips, taught=tmp_path)
    yes = {label: [{"path": f"{label}/{number}.mp4"} for number in range(4)] for label in ("redden", "turn blue")}
    found = values(ask(server, "teach", name="colours", yes=yes))
    assert (found["model"], found["labels"], found["new"]) == ("colours", ["redden", "turn blue"], 8)
    assert values(ask(server, "about"))["models"]["colours"] == ["redden", "turn blue"]
    answer = values(ask(server, "predict", path="turn blue/5.mp4", model="colours"))
    assert {entry["label"] for entry in answer["top"]} == {"redden", "turn blue"}
    values(ask(server, "teach", name="colours", rename={"redden": "grows red"}))
    again = values(ask(server, "predict", path="turn blue/5.mp4", model="colours"))
    assert {entry["label"] for entry in again["top"]} == {"grows red", "turn blue"}
    assert [path.name for path in tmp_path.iterdir()] == ["colours"]


def test_what_is_not_taught(serving: Callable[..., Any], clips: Path, tmp_path: Path, services: list[Service]) -> None:
    clip = {"path": "redden/0.mp4"}
    assert "no tool 'teach'" in refusal(ask(serving(clips), "teach", name="x", yes={"redden": [clip]}))
    taught = tmp_path / "taught"
    taught.mkdir()
    (taught / "linked").symlink_to(tmp_path)
    server = serving(clips, taught=taught)
    for name in ("../x", "", ".hidden", "a/b", str(tmp_path)):
        assert "String should match pattern" in refusal(ask(server, "teach", name=name, yes={"redden": [clip]}))
    assert "a link to another folder" in refusal(ask(server, "teach", name="linked", yes={"redden": [clip]}))
    assert "the limit of one call is 200" in refusal(ask(server, "teach", name="x", yes={"redden": [clip] * 201}))
    assert "nothing to teach" in refusal(ask(server, "teach", name="x"))
    broken = {"path": "redden/broken.mp4"}
    assert "not a video" in refusal(ask(server, "teach", name="x", yes={"redden": [clip], "b": [broken]}))
    short = serving(clips, taught=taught, max_seconds=0.7)
    long = {"path": "redden/5.mp4"}
    assert "the limit is 0.7 s" in refusal(ask(short, "teach", name="x", yes={"redden": [clip, long]}))
    assert [path.name for path in taught.iterdir()] == ["linked"]


def test_nothing_is_written_if_teaching_is_ended_while_clips_are_embedded(
    clips: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def ended(done: int, total: int) -> None:
        raise gone()

    yes = {label: [(str(clips / label / f"{n}.mp4"), 0.0, None) for n in range(3)] for label in ("redden", "turn blue")}
    with pytest.raises(Refusal, match="the client went away"):
        teach_clips(tmp_path / "x", yes, {}, [], [], {}, ended, start=str(tiny_model), device="cpu", dtype="float32")
    assert not list(tmp_path.rglob("*.*"))
