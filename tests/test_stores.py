"""Object stores: whatever their clients raise is one line of ours."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fewframes.errors import ConfigError, FewframesError, VideoError
from fewframes.moments import content_of
from fewframes.shards import begin, cut
from fewframes.sources import read_list
from fewframes.video import open_video


class BotoCoreError(Exception):
    """As botocore's: no OSError."""


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
