"""Processes forked after a video was read: no library waits in them for threads that do not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hug.mp4"

SCRIPT = """
import gc, os, sys, threading
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
import fewframes

torch.set_num_threads(2)
path, times_s = sys.argv[1], torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)
picture = torch.rand(1, 3, 300, 400)


def resize():
    return F.interpolate(picture, size=(224, 224), mode="bilinear", antialias=True)


class Resized(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        gc.collect()
        return resize()[0]


def forked(name, work):
    child = os.fork()
    if child == 0:
        work()
        gc.collect()
        sys.exit(0)  # unlike os._exit, this frees every object
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


gc.disable()
model = fewframes.load(device="cpu", dtype="float32", runtime="torch")
named = model.predict(path).top(1)[0].label
list(model.predict_many([path, path]))
print("loader", len(list(DataLoader(Resized(), num_workers=1, timeout=60))), flush=True)
forked("torch", resize)
forked("predict", lambda: model.predict(path).top(1)[0].label == named or sys.exit(1))
video = fewframes.open_video(path)
video.frames_at(times_s)
forked("open", lambda: globals().pop("video"))
video.close()
forked("closed", resize)

at_work, enough = threading.Event(), threading.Event()


def read_on():
    while not enough.is_set():
        fewframes.read_frames(path, times_s)
        at_work.set()


reading = threading.Thread(target=read_on)
reading.start()
at_work.wait()
forked("beside", lambda: fewframes.read_frames(path, times_s))
enough.set()
reading.join()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_forks_and_loaders_work_after_videos_were_read() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    output = done.stdout.split("\n")
    assert output == ["loader 3", "torch 0", "predict 0", "open 0", "closed 0", "beside 0", ""], done.stderr[-2000:]


ONNX_RUNTIME = """
import gc, os, sys
import fewframes

path, model = sys.argv[1], fewframes.load(runtime="onnxruntime")
named = model.predict(path).label


def forked(name, work, code):
    child = os.fork()
    if child == 0:
        work()
        gc.collect()
        sys.exit(code)  # unlike os._exit, this runs the destructors of libraries
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


forked("nothing", lambda: None, 7)
forked("freed", lambda: globals().pop("model"), 0)
forked("predict", lambda: model.predict(path).label == named or os._exit(1), 0)
forked("written", lambda: print("by the child"), 0)
print(model.predict(path).label == named)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_forks_work_after_onnx_runtime_was_used() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ONNX_RUNTIME, str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout.splitlines()
    assert output == ["nothing 7", "freed 0", "predict 0", "by the child", "written 0", "True"], done.stderr[-2000:]


THREADS = """
import gc, os, sys, weakref
import torch
import fewframes

gc.disable()
times_s = torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)


def threads():
    tasks = os.listdir("/proc/self/task")
    return {open(f"/proc/self/task/{task}/comm").read().strip() for task in tasks}, len(tasks)


fewframes.read_frames(sys.argv[1], times_s)
_, before = threads()
for _ in range(5):
    fewframes.read_frames(sys.argv[1], times_s)
names, after = threads()
assert not any(name.startswith("av:") for name in names), names
assert after == before, (before, after)
video = fewframes.open_video(sys.argv[1])
clip = video.frames_at(times_s)
alive = weakref.ref(video)
video.close()
del video
assert alive() is None, gc.get_referrers(alive())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_a_closed_video_leaves_nothing_for_the_collector() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(EXAMPLE)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
