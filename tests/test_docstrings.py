"""Public docstrings name the errors that a function raises and the shapes of the arrays that it takes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "geli_hf"
SHAPE = re.compile(r"\(\s*[\w .*+-]+,[\w ,.*+-]*\)")  # such as (turns,) or (batch, turns)
RIDDLES = re.compile(r"(What|Who|How|Whether|Of|Where|Which|As every|As of)\b")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_") or path.name == "__init__.py")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """Walk a function without the functions inside it."""
    waiting = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*Function.__args__, ast.Lambda, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)


def raised(function: Function) -> set[str]:
    calls = [
        node.exc for node in own_nodes(function) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    ]
    names = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
    return {name for name in names if not name.startswith("_") and name != "NotImplementedError"}


def arrays(function: Function) -> list[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotated = {argument.arg: ast.unparse(argument.annotation) for argument in arguments if argument.annotation}
    return [name for name, kind in annotated.items() if re.search(r"\b(ndarray|\w*Tensor)\b", kind)]


def problems(path: Path) -> list[str]:
    found = []
    for name, function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        words = ast.get_docstring(function) or ""
        missing = {error for error in raised(function) if error not in words}
        if missing:
            found.append(f"{name} raises {', '.join(sorted(missing))} and does not say so")
        if arrays(function) and not SHAPE.search(words):
            found.append(f"{name} takes {', '.join(arrays(function))} and names no shape")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_errors_and_shapes_are_documented(path):
    assert not problems(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_docstring_begins_with_what_the_thing_is_or_does(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, *Function.__args__)
    documented = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    assert not [words.splitlines()[0] for words in documented if RIDDLES.match(words)]


def test_a_function_that_says_too_little_is_found(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "def f(x: np.ndarray):\n    'Do it.'\n    raise ValueError('no')\n"
        "def g(x: np.ndarray):\n    'Do it to x, (turns,). Raises: ValueError.'\n    raise ValueError(1)\n"
    )
    assert problems(file) == ["f raises ValueError and does not say so", "f takes x and names no shape"]
