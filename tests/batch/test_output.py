"""Shards: exactly one row for each input, in order; what is there is done; another run's folder is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from fewframes.batch.output import ShardFolder, ShardWriter, begin, count, cut, name_of, pieces, remaining, run_here
from fewframes.cli.sources import expand
from fewframes.core.storage import file_system
from fewframes.errors import ConfigError, MissingDependency

SOURCES = ["/v/a.mp4", "/v/b.mp4", "/v/bad.mp4", "/v/c.mp4", "/v/a.mp4"]


@dataclass
class Lengths:
    """A `Work` that needs no videos: the length of the name, an error for what is called bad."""

    about: dict[str, str] = field(default_factory=lambda: {"weights": "w"})
    seen: list[str] = field(default_factory=list)
    stop_after: int = 99

    @property
    def columns(self) -> dict[str, Any]:
        return {"source": pyarrow.string(), "length": pyarrow.int64(), "error": pyarrow.string()}

    def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
        for source in sources:
            if len(self.seen) == self.stop_after:
                raise KeyboardInterrupt
            self.seen.append(source)
            bad = "bad" in source
            yield (
                {"source": source, "error": f"{source}: no video"} if bad else {"source": source, "length": len(source)}
            )


def rows_of(place: str) -> list[dict[str, Any]]:
    system, path = fsspec.core.url_to_fs(place)
    files = sorted(name for name in system.ls(path, detail=False) if name.endswith(".parquet"))
    return [row for name in files for row in parquet.read_table(system.open(name, "rb")).to_pylist()]


def finish(place: str, work: Lengths, sources: Sequence[str] = SOURCES, shard_rows: int = 2) -> ShardFolder:
    shards = cut(sources, shard_rows)
    folder = begin(place, work.about, shards)
    list(run_here(folder, work, remaining(folder, shards)))
    return folder


@pytest.mark.parametrize("kind", ["path", "memory"])
def test_a_row_for_each_input_in_order(kind: str, tmp_path: Path) -> None:
    place = str(tmp_path / "new" / "out") if kind == "path" else "memory://rows/out"
    folder = finish(place, Lengths())
    errors = [None, None, "/v/bad.mp4: no video", None, None]
    lengths = [8, 8, None, 8, 8]
    expected = [
        {"row": row, "source": source, "length": length, "error": error}
        for row, (source, length, error) in enumerate(zip(SOURCES, lengths, errors, strict=True))
    ]
    assert rows_of(place) == expected
    tally = count(folder, cut(SOURCES, 2))
    assert (tally.num_rows, tally.num_failed, tally.num_shards) == (5, 1, 3)
    assert tally.errors == ("/v/bad.mp4: no video",)
    assert folder.names() == {"_run.json", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet"}


def test_only_what_is_not_there_is_done_again(tmp_path: Path) -> None:
    first = Lengths(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        finish(str(tmp_path), first)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["_run.json", "part-000000.parquet"]
    again = Lengths()
    folder = finish(str(tmp_path), again)
    assert again.seen == SOURCES[2:]
    whole = rows_of(str(tmp_path))
    path = tmp_path / name_of(1)
    path.write_bytes(path.read_bytes()[:-9])  # a damaged file is not there
    with pytest.raises(ConfigError, match="part-000001.parquet missing or damaged; run the same command again"):
        count(folder, cut(SOURCES, 2))
    last = Lengths()
    finish(str(tmp_path), last)
    assert last.seen == SOURCES[2:4]
    assert rows_of(str(tmp_path)) == whole


@pytest.mark.parametrize("cut_to", [0, 4, 7, 11, 300])
def test_a_file_cut_short_is_not_there(cut_to: int, tmp_path: Path) -> None:
    folder = finish(str(tmp_path), Lengths())
    path = tmp_path / name_of(1)
    path.write_bytes(path.read_bytes()[:cut_to])
    assert [shard.number for shard in remaining(folder, cut(SOURCES, 2))] == [1]


def test_any_damage_of_a_files_end_counts_as_not_there(tmp_path: Path) -> None:
    folder = finish(str(tmp_path), Lengths())
    path = tmp_path / name_of(1)
    content = path.read_bytes()
    end = int.from_bytes(content[-8:-4], "little") + 8
    for place in range(1, end + 1):
        damaged = bytearray(content)
        damaged[-place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="part-000001.parquet missing or damaged"):
            count(folder, cut(SOURCES, 2))
    again = Lengths()
    finish(str(tmp_path), again)
    assert again.seen == SOURCES[2:4]
    assert path.read_bytes() == content


@pytest.mark.parametrize("digits", ["3f786850e387550fdab836ed7e6dc881de23001b", "0" * 40])
def test_names_that_look_like_a_digest(digits: str, tmp_path: Path) -> None:
    sources = [f"/v/digest-{digits}.mp4", f"/v/bad/digest-{digits}.mp4"]
    folder = finish(str(tmp_path), Lengths({"labels": f"digest-{digits}"}), sources)
    assert count(folder, cut(sources, 2)).num_rows == 2
    path = tmp_path / name_of(0)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"digest-") + 10] ^= 1
    path.write_bytes(content)
    assert remaining(folder, cut(sources, 2)) == cut(sources, 2)


def test_folders_in_a_former_format_are_refused(tmp_path: Path) -> None:
    finish(str(tmp_path), Lengths())
    about = tmp_path / "_run.json"
    former = {name: value for name, value in json.loads(about.read_text()).items() if name != "format"}
    about.write_text(json.dumps(former))
    with pytest.raises(ConfigError, match="holds another run, which differs in format; choose another folder"):
        finish(str(tmp_path), Lengths())


def test_readers_can_notice_damage_in_the_middle(tmp_path: Path) -> None:
    finish(str(tmp_path), Lengths())
    path = tmp_path / name_of(0)
    content = bytearray(path.read_bytes())
    content[content.index(b"/v/b.mp4") + 3] ^= 1
    path.write_bytes(content)
    assert parquet.read_table(path, columns=["row"], page_checksum_verification=True).num_rows == 2
    with pytest.raises(OSError, match="CRC"):
        parquet.read_table(path, page_checksum_verification=True)


def test_another_run_is_refused(tmp_path: Path) -> None:
    finish(str(tmp_path), Lengths())
    for work, sources, shard_rows, other in [
        (Lengths({"weights": "v"}), SOURCES, 2, "weights"),
        (Lengths(), SOURCES[::-1], 2, "inputs"),
        (Lengths(), SOURCES, 1, "inputs, num_shards"),
    ]:
        with pytest.raises(ConfigError, match=f"holds another run, which differs in {other}; choose another folder"):
            finish(str(tmp_path), work, sources, shard_rows)
        assert not work.seen
    stray, run = tmp_path / "stray", json.loads((tmp_path / "_run.json").read_text())
    finish(str(stray), Lengths({"weights": "v"}))
    (stray / "_run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match="part-000000.parquet belongs to another run"):
        finish(str(stray), Lengths())
    (stray / "_run.json").unlink()
    with pytest.raises(ConfigError, match=r"holds part- files but no _run\.json"):
        finish(str(stray), Lengths())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written or read"):
        finish(str(tmp_path / "file" / "out"), Lengths())
    with pytest.raises(ConfigError, match="nowhere"):
        finish("nowhere://out", Lengths())


def test_shards_come_together_from_pieces_in_any_order() -> None:
    shards = cut(SOURCES, 3)
    parts = pieces(shards, 2)
    assert [(part.number, part.first, len(part.sources)) for part in parts] == [(0, 0, 2), (0, 2, 1), (1, 3, 2)]
    gather = ShardWriter(shards)
    rows = {part.first: [{"source": source} for source in part.sources] for part in parts}
    assert gather.add(parts[1], rows[2]) is None
    assert gather.add(parts[2], rows[3]) == (shards[1], rows[3])
    assert gather.add(parts[0], rows[0]) == (shards[0], [*rows[0], *rows[2]])


def test_work_that_leaves_a_row_out_writes_nothing(tmp_path: Path) -> None:
    class Forgetful(Lengths):
        def rows(self, sources: Sequence[str]) -> Iterator[dict[str, object]]:
            return super().rows(sources[1:])

    with pytest.raises((AssertionError, ValueError)):
        finish(str(tmp_path), Forgetful())
    assert [path.name for path in tmp_path.glob("*")] == ["_run.json"]


def test_lists_and_packages_of_object_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/lists/all.txt", b"# all\ns3://bucket/a.mp4\nmemory://lists/more.txt\n")
    system.pipe_file("/lists/more.txt", b"b.mp4\n")
    assert list(expand(["memory://lists/all.txt"])) == ["s3://bucket/a.mp4", "b.mp4"]

    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingDependency, match=r"Install s3fs to access S3; pip install 'fewframes\[s3\]'"):
        file_system("s3://bucket/list.txt")
