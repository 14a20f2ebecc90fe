"""The batch wing: many videos, many processes, many machines. Ray needs the extra `ray`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.batch.output import run_here as run_here
    from fewframes.batch.ray import run_on_ray as run_on_ray

__getattr__, __dir__ = lazy("fewframes.batch", {"run_here": "output", "run_on_ray": "ray"})
