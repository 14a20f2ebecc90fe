"""Public names of a package, imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def lazy(package: str, module_of: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package.

    Args:
        package: The package's name.
        module_of: The module of each public name, by its dotted name below `package`; `module:name` if it has another name there.
    """

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = module_of[name].partition(":")
        return getattr(importlib.import_module(f"{package}.{module}"), attribute or name)

    return get, lambda: sorted(module_of)
