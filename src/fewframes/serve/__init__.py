"""Answer over HTTP, with a web page to try it. Needs the extra `serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.serve.app import create_app as create_app

__getattr__, __dir__ = lazy("fewframes.serve", {"create_app": "app"})
