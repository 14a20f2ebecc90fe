"""The videos that tests make leave the tests' process as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.numbered import Numbered, drifting


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies here")
def test_no_encoder_keeps_this_thread_a_real_time_one(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    Numbered(codec="libsvtav1", options={"preset": "12"}).write(tmp_path / "numbered")
    drifting(tmp_path / "drifting.mp4", "libsvtav1", 10, gop=5, options={"preset": "12"})
    assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before
