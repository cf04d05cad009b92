"""Exports that a package imports at their first use, so that it stays light to import."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, exports: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        exports: names to export, by module.

    Raises:
        AttributeError: by `__getattr__`, for another name.
    """
    home = {name: module for module, names in exports.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{home[name]}", package), name)

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *home})

    return sorted(home), get, names
