"""Text from outside (names of files, labels, errors) controls no terminal, page, player, table, log or picture."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fewframes.cli.console import print_lines, tell
from fewframes.cli.main import app
from fewframes.core.text import count_of, for_csv, for_subtitles, html_of, json_line, plain
from fewframes.inference.detection.spans import Span, subtitles
from fewframes.inference.timeline import Timeline
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.search.page import search_page
from fewframes.search.table import Hit
from fewframes.video.view import ViewConfig
from fewframes.viz.charts import timeline_png
from fewframes.viz.timeline import timeline_page
from helpers.models import TINY

EVIL = (
    "\x1b[2J\x1b]0;mine\x07",
    "\x9b31m",
    "two\nlines\r\nerror: none",
    "gpj.\u202e4pm\u2066",
    "one\u2028two\x85three",
    "[red]hi[/red] [link=x]",
    "<script>alert('a')<script> & \"b\"",
    "00:00:00.000 --> 99:00:00.000\n\n<c.red>x",
    "=HYPERLINK(1)",
    "@SUM(1)",
    "+1",
    "-1",
    "\t=1",
    'a,"b";c',
    "a$b$_{^",
    "*bold* `code` | cell",
)
WORDS = st.text(st.characters(codec=None), max_size=30) | st.sampled_from([*EVIL, "bytes \udcff"])
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def steers(text: str) -> list[str]:
    """Return the characters that control the medium that shows them."""
    bad = {"Cc", "Cs", "Zl", "Zp"}
    return [
        one for one in text
        if unicodedata.category(one) in bad or unicodedata.bidirectional(one) in TURNS or one in "\u200e\u200f\u061c"
    ]  # fmt: skip


class Tags(HTMLParser):
    """The tags and text that a browser would see in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@given(WORDS)
def test_each_medium_is_left_in_peace(words: str) -> None:
    assert not steers(plain(words))
    shown = html_of("core/templates/bars.html", {"caption": words, "header": (), "rows": (), "marks": ()})
    inside = shown[shown.index(">", shown.index("<caption")) + 1 : shown.index("</caption>")]
    assert not steers(inside)
    assert not re.search("[<>\"']", inside)
    cue = for_subtitles(words)
    assert not steers(cue)
    assert "-->" not in cue
    assert "<" not in cue
    cell = str(for_csv(words))
    assert not steers(cell)
    assert cell[:1] not in set("=+-@")
    text = io.StringIO()
    csv.writer(text).writerow([cell, "next"])
    assert next(csv.reader([text.getvalue()])) == [cell, "next"]
    line = json_line({words: [words]})
    assert not steers(line)
    assert json.loads(line) == {words: [words]}  # nothing is lost
    if not steers(words):
        assert plain(words) == words


def test_numbers_and_common_words_stay() -> None:
    assert for_csv(-0.5) == -0.5
    assert for_csv("hug") == "hug"
    assert for_csv("a-b = c") == "a-b = c"
    for words in ("Füße 摔倒 😀", "می‌خواهم", "שלום", "é", "50 % [a] 'b'"):
        assert plain(words) == words
    assert json.loads(json_line({"a": 1}, indent=1)) == {"a": 1}
    assert json_line({"a": 1}, indent=1).count("\n") == 2


@pytest.mark.parametrize("words", EVIL)
def test_lines_for_people_are_lines(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"failed: {words}")
    print_lines([words, "second"])
    output = capsys.readouterr()
    assert output.err.splitlines() == [f"failed: {plain(words)}"]
    assert output.out.splitlines() == [plain(words).rstrip(), "second"]


def test_what_is_logged_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    for words in EVIL:
        logging.getLogger("fewframes").warning("%s: damaged", words)
    assert [record.getMessage() for record in caplog.records] == [f"{plain(words)}: damaged" for words in EVIL]
    assert not steers("".join(record.getMessage() for record in caplog.records))


def timeline_of(labels: tuple[str, ...], source: str) -> Timeline:
    spans = tuple(Span(float(start_s), start_s + 1.0, label, 0.9) for start_s, label in enumerate(labels))
    scores_WK = np.random.default_rng(0).random((len(labels), len(labels)), np.float32)
    return Timeline(
        source=source, duration_s=float(len(labels)), start_s=0.0, end_s=float(len(labels)), labels=labels, threshold=0.5,
        times_s=np.arange(len(labels), dtype=np.float64), scores=scores_WK, spans=spans, gaps=(),
        windows=(), num_encoded=0, num_missing=0,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Glyph")
def test_pages_subtitles_tables_and_pictures_of_a_timeline() -> None:
    source = "/videos/<img src=x onerror=alert(1)>' \x1b[2J\u202e.mp4"
    found = timeline_of(EVIL, source)
    page = timeline_page(found, source, [f"{number}.jpg" for number in range(len(EVIL))])
    tags = Tags(page).tags
    allowed = set("html head meta title link style body h1 video div a p span img b br script".split())
    assert {tag for tag, _ in tags} <= allowed
    assert [tag for tag, _ in tags].count("script") == 1
    assert [tag for tag, _ in tags].count("img") == len(EVIL)
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert not steers(page.replace("\n", ""))
    cues = found.to_vtt()
    assert cues.count("-->") == len(EVIL)
    assert len(re.findall(r"\n\n", cues)) == len(EVIL)
    assert "<" not in cues
    rows = list(csv.reader(io.StringIO(found.to_csv())))
    assert len(rows) == len(EVIL) + 1
    assert not any(cell[:1] in set("=+-@") and not cell[1:2].isdigit() for row in rows for cell in row)
    assert rows[1 + EVIL.index("-1")][3] == "'-1"
    frames = [np.zeros((3, 18, 32), np.uint8)] * 2
    assert timeline_png(found, found.spans[:2], frames).startswith(b"\x89PNG")


def test_pages_of_a_search() -> None:
    hits = [Hit(f"id{n}'\"><b>", "/v/<u>' .mp4", 0.0, 1.0, 0.5, label, 0.5) for n, label in enumerate(EVIL)]
    page = search_page("<h2>like 'this'</h2>", hits, {})
    tags = [tag for tag, _ in Tags(page).tags]
    assert "u" not in tags
    assert "h2" not in tags
    assert tags.count("script") == 1
    assert tags.count("button") == 2 * len(EVIL)


def test_subtitles_of_an_odd_label() -> None:
    span = Span(0.0, 1.0, "fall\n\n00:05.000 --> 00:09.000\n<c>\x1b[2Jx", 0.5)
    assert subtitles([span]) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nfall\\n\\n00:05.000 --&gt; 00:09.000\\n&lt;c&gt;\\x1b[2Jx 50%\n"
    )


@pytest.fixture(scope="module")
def evil_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    view = ViewConfig(resize_px=36, crop_px=32)
    path = tmp_path_factory.mktemp("evil") / "model.safetensors"
    save_checkpoint(path, Checkpoint(build_model(replace(TINY, num_classes=len(EVIL)), view), view, EVIL))
    return path


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_commands_on_odd_names(evil_model: Path, videos: Path, tmp_path: Path, form: list[str]) -> None:
    """A folder, its videos and the labels of the model all have control characters in their names."""
    folder = tmp_path / "\x1b[2J[red]\u202e"
    folder.mkdir()
    for number, words in enumerate(EVIL):
        if number < 3:
            shutil.copy(videos / "a.mp4", folder / f"{words.replace('/', '')}.mp4")
    (folder / "broken \x1b]0;x\x07.mp4").write_bytes(b"no video")
    fast = ["--model", str(evil_model), "--device", "cpu", "--dtype", "float32"]
    done = CliRunner().invoke(app, ["predict", str(folder), *fast, *form, "--topk", "16"])
    assert done.exit_code == 3, done.stderr
    assert not steers((done.stdout + done.stderr).replace("\n", ""))
    if form == ["--json"]:
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(rows) == 4
        assert [{one["label"] for one in row["top"]} for row in rows if "top" in row] == [set(EVIL)] * 3
    elif form == ["--csv"]:
        assert len(list(csv.reader(io.StringIO(done.stdout)))) == 5
        assert "'=HYPERLINK(1)" in done.stdout
    else:
        assert "[red]hi[/red] [link=x]" in done.stdout  # shown, and not followed as markup


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_timeline_on_odd_names(evil_model: Path, videos: Path, tmp_path: Path) -> None:
    film = tmp_path / "film \x1b[2J\n\u202e$a$.mp4"
    shutil.copy(videos / "a.mp4", film)
    fast = ["--model", str(evil_model), "--device", "cpu", "--dtype", "float32", "--no-cache", "--threshold", "0"]
    files = [word for kind in ("vtt", "plot", "thumbnails") for word in (f"--{kind}", str(tmp_path / f"x.{kind}"))]
    files[3] = str(tmp_path / "x.png")
    done = CliRunner().invoke(app, ["timeline", str(film), *fast, *files])
    assert done.exit_code == 0, done.output
    assert not steers((done.stdout + done.stderr).replace("\n", ""))
    index = json.loads((tmp_path / "x.thumbnails" / "index.json").read_text(encoding="utf-8"))
    assert {entry["label"] for entry in index} == set(EVIL)
    assert all(re.fullmatch(r"\d{4}\.jpg", entry["file"]) for entry in index)  # no file name contains a label
    assert not steers((tmp_path / "x.vtt").read_text(encoding="utf-8").replace("\n", ""))


def test_one_thing_has_no_plural() -> None:
    assert [count_of(count, "video") for count in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
