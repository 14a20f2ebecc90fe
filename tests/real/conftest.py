"""Where the real videos are; without them these tests fail, they do not skip."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.fail(f"no real videos in {SHARED.name}/data beside the project: these tests need them")
    return SHARED
