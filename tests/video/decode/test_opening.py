"""Opening containers, whatever version of PyAV does it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from fewframes.video.decode.opening import open_alone
from helpers.numbered import Numbered


def test_a_title_that_is_not_utf8_stops_nobody(tmp_path: Path) -> None:
    path = Numbered(suffix=".mkv").write(tmp_path / "file")
    content = path.read_bytes()
    assert b"Lavf" in content  # the program that wrote the file
    path.write_bytes(content.replace(b"Lavf", b"\xff\xfevf"))
    with closing(open_alone(str(path))) as container:
        assert any("vf" in value and not value.isascii() for value in container.metadata.values())
