"""Public names are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fewframes
import fewframes.batch
import fewframes.data
import fewframes.export
import fewframes.inference
import fewframes.search
import fewframes.serve
import fewframes.video

WINGS = [
    fewframes,
    fewframes.batch,
    fewframes.data,
    fewframes.export,
    fewframes.inference,
    fewframes.search,
    fewframes.serve,
    fewframes.video,
]


@pytest.mark.parametrize("package", WINGS, ids=lambda package: package.__name__)
def test_every_public_name_is_there(package: object) -> None:
    names = [name for name in dir(package) if not name.startswith("_")]
    assert names
    assert all(getattr(package, name) is not None for name in names)
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_that_name'"):
        getattr(package, "nothing_of_that_name")  # noqa: B009


def test_importing_wings_loads_no_torch() -> None:
    code = "import sys; import fewframes.data, fewframes.video, fewframes.inference, fewframes.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
