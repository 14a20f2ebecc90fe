"""Processes forked after a video was read: no library waits in them for threads that do not exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.forked import FORKED, lines_of

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
    assert lines_of(SCRIPT, str(EXAMPLE), timeout_s=240) == [
        "loader 3",
        "torch 0",
        "predict 0",
        "open 0",
        "closed 0",
        "beside 0",
    ]


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
    assert lines_of(ONNX_RUNTIME, str(EXAMPLE), timeout_s=120) == [
        "nothing 7",
        "freed 0",
        "predict 0",
        "by the child",
        "written 0",
        "True",
    ]


VIDEOS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import fewframes
from torch.utils.data import DataLoader, Dataset

path, runtime = sys.argv[1:]
fork = multiprocessing.get_context("fork")
model = fewframes.load(device="cpu", dtype="float32", runtime=runtime)


def label(_=None):
    return model.predict(path).label


class Videos(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return fewframes.read_frames(path, [0.5, 1.0 + index]).frames[0, 0, 0, 0].item(), label() == named


named = label()
loader = DataLoader(Videos(), num_workers=2, batch_size=None, multiprocessing_context=fork)
print("loader", sum(found for _, found in loader), flush=True)
with fork.Pool(2) as pool:
    print("pool", pool.map(label, range(2)) == [named] * 2, flush=True)
with ProcessPoolExecutor(1, fork) as pool:
    print("executor", pool.submit(label).result() == named, flush=True)
print("parent", label() == named)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_workers_that_are_forked_predict_after_their_parent(runtime: str) -> None:
    lines = lines_of(VIDEOS, str(EXAMPLE), runtime, timeout_s=240)
    assert lines == ["loader 4", "pool True", "executor True", "parent True"]


BEGUN = (
    FORKED
    + """
import fewframes

path, model = sys.argv[1], fewframes.load(runtime="onnxruntime")
many = model.predict_many([path] * 9, workers=2)
stream = model.stream(path)
of_stream = iter(stream)
video = fewframes.open_video(path)
next(many), next(of_stream), video.frames_at([0.5])
forked("many", lambda: refused(lambda: next(many)))
forked("stream", lambda: refused(lambda: [*of_stream]))
forked("closed", lambda: (many.close(), stream.close(), video.close()))
forked("anew", lambda: len([*model.predict_many([path] * 3)]) == 3 or os._exit(1))
print(len([*many]))
"""
)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_what_was_begun_before_a_fork_is_refused_in_the_child() -> None:
    assert lines_of(BEGUN, str(EXAMPLE), timeout_s=240) == [
        "VideoError True", "many 0", "VideoError True", "stream 0", "closed 0", "anew 0", "8"
    ]  # fmt: skip


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
    assert lines_of(THREADS, str(EXAMPLE), timeout_s=120) == []
