"""Object stores: any error of their clients becomes an error of ours with one line."""

from __future__ import annotations

import sys
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fewframes.batch.output import begin, cut
from fewframes.cli.sources import read_list
from fewframes.core.storage import file_system
from fewframes.errors import ConfigError, FewframesError, MissingVideo, Unreachable, VideoError
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.results import Failure
from fewframes.search.index import Index
from fewframes.search.table import content_of
from fewframes.video.source import open_video
from helpers.numbered import drifting


class BotoCoreError(Exception):
    """An error that is not an OSError, like those of botocore."""


class Locked(MemoryFileSystem):  # type: ignore[misc]
    """A store whose client finds no credentials."""

    protocol = "locked"

    def _refuse(self, *_: object, **__: object) -> None:
        raise BotoCoreError("Unable to locate credentials")

    _open = info = cat_file = ls = pipe_file = _refuse


def test_clients_that_raise_their_own_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("locked", Locked, clobber=True)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", SimpleNamespace(BotoCoreError=BotoCoreError))
    url = "locked://bucket/a.mp4"
    with pytest.raises(VideoError, match=r"locked://bucket/a.mp4: cannot be opened \(Unable to locate credentials\)"):
        open_video(url)
    with pytest.raises(FewframesError, match=r"list.txt: cannot be read \(Unable to locate credentials\)"):
        read_list("locked://bucket/list.txt")
    with pytest.raises(ConfigError, match=r"out: cannot be written or read \(Unable to locate credentials\)"):
        begin("locked://bucket/out", {}, cut([url], 1))
    assert content_of(url) == ""


class Breaking(MemoryFileSystem):  # type: ignore[misc]
    """A store whose connection breaks two thirds into a file."""

    protocol = "breaking"
    content = b""

    def _open(self, path: str, mode: str = "rb", **_: object) -> Any:
        content = self.content

        class File(BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() + (size or 0) > len(content) * 2 / 3:
                    raise BotoCoreError
                return super().read(size)

        return File(content)


def test_a_connection_that_breaks_is_that_videos_failure_and_no_damage(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", SimpleNamespace(BotoCoreError=BotoCoreError))
    film = drifting(tmp_path / "film.mpg", "mpeg2video", 150, gop=12, options={"b": "2M"}, size=256)
    assert film.stat().st_size > 200_000
    url = "breaking://bucket/film.mpg"
    monkeypatch.setattr(Breaking, "content", film.read_bytes())
    words = r"film.mpg: cannot be read to its end \(BotoCoreError\); check the network, and try again"
    before, broken, after = predictor.predict_many([film, url, film])
    assert isinstance(broken, Failure)
    assert broken.error.startswith(f"{url}: cannot be read to its end")
    assert not isinstance(before, Failure)
    assert not isinstance(after, Failure)
    with pytest.raises(Unreachable, match=words):  # a damaged file would give a gap instead
        sweep(predictor, url, TimelineConfig(window_s=2))
    added = Index.open(tmp_path / "index", predictor, window_s=2).add([film, url])
    assert (added.num_added, [failure.source for failure in added.failures]) == (1, [url])


def test_what_a_server_answers_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class ClientError(Exception):
        def __init__(self, status: int) -> None:
            super().__init__(f"status {status}")
            self.status = status

    class Answers(MemoryFileSystem):  # type: ignore[misc]
        protocol = "answers"

        def open(self, path: str, *_: object, **__: object) -> None:
            raise FileNotFoundError(path) from ClientError(int(path[-3:]))

    fsspec.register_implementation("answers", Answers, clobber=True)
    monkeypatch.setitem(sys.modules, "aiohttp.client_exceptions", SimpleNamespace(ClientError=ClientError))
    with pytest.raises(VideoError, match=r"answers://403: cannot be opened \(status 403\)") as refused:
        open_video("answers://403")
    assert not isinstance(refused.value, MissingVideo)
    with pytest.raises(MissingVideo, match="answers://404: there is no such file"):
        open_video("answers://404")


def test_addresses_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_text("no archive")
    for url in (f"zip://a.mp4::{tmp_path / 'no.zip'}", "reference://x", "dir://x"):
        assert content_of(url) == ""
        with pytest.raises(VideoError, match="cannot be opened"):
            open_video(url)
    with zipfile.ZipFile(tmp_path / "yes.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    system, path = file_system(f"zip://a.txt::{tmp_path / 'yes.zip'}")
    assert system.cat_file(path) == b"a"
