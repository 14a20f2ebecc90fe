"""Results that cannot be written, and folders that another process is writing to."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fewframes.core.files import held, write_file
from fewframes.errors import ConfigError, OutputError

CLI = [sys.executable, "-m", "fewframes.cli"]
FULL = Path("/dev/full")
HOLDER = """
import sys
from pathlib import Path
from fewframes.core.files import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "there.txt")
    write_file(tmp_path / "link.txt", "caf\u00e9 \udce9")
    assert (tmp_path / "there.txt").read_bytes() == b"caf\xc3\xa9 ?"
    assert (tmp_path / "link.txt").is_symlink()
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(
            OutputError, match=r"there\.txt: cannot be written \(File too large\); make room or take another"
        ):
            write_file(tmp_path / "there.txt", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "there.txt").read_bytes() == b"caf\xc3\xa9 ?"
    assert {path.name for path in tmp_path.iterdir()} == {"link.txt", "there.txt"}
    with pytest.raises(OutputError, match="No such file or directory"):
        write_file(tmp_path / "none" / "a.txt", "")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", [["models"], ["predict", "--help"], ["timeline", "VIDEO", "--vtt", str(FULL)]])
def test_a_full_disk_is_one_line(tiny_model: Path, videos: Path, command: list[str]) -> None:
    given = [str(videos / "a.mp4") if word == "VIDEO" else word for word in command]
    given += ["--model", str(tiny_model), "--no-cache", "--dtype", "float32"] if "VIDEO" in command else []
    with FULL.open("wb") as full:
        done = subprocess.run([*CLI, *given], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1, done.stderr
    assert last.startswith("error: ")
    assert "cannot be written (No space left on device); free some space" in last
    assert "Traceback" not in done.stderr


def test_who_writes_is_named_and_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=rf"process {holder.pid} on .+, since .+, is writing to it; wait"),
            held(tmp_path),
        ):
            pass
        holder.kill()
    with held(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".writer").read_text()
    assert list(tmp_path.iterdir()) == []
