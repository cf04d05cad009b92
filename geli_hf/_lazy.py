"""Names of a package that are imported at their first use, so that the package stays light to import."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_exports(package: str, file: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__all__`, `__getattr__` and `__dir__` of a package out of its stub, which type checkers read too.

    Args:
        package: its `__name__`.
        file: its `__file__`; the stub, `__init__.pyi`, lies beside it and imports the names that the package exports.

    Raises:
        AttributeError: the package exports no such name.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    home = {alias.name: node.module for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{home[name]}", package), name)

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *home})

    return sorted(home), get, names
