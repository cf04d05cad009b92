"""A Space: the folder of its app with this package beside it, and what it needs in the versions that are in use here.

The package goes along as a wheel would unpack it, next to app.py, where Python finds it. A wheel that requirements.txt
names can't be installed: a Gradio Space is built with that one file at hand, before the others are there.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from itertools import chain
from pathlib import Path

from huggingface_hub import HfApi, SpaceCard
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .push import CARD, Push, read_card

PACKAGE = Path(__file__).parents[1]
MODEL_VARIABLE = "GELI_MODEL"  # where an app reads which model to show
REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True, kw_only=True)
class SpacePush(Push):
    """
    Args:
        name: its folder, as it was given on the command line.
        secrets, variables: of the app's environment; secrets are never read back, and not shown.
        hardware: asked for last, since it may cost from then on.
        model: the name of one on the Hub, see `MODEL_VARIABLE`.
    """

    repo_type = "space"
    stale = ("geli_hf/*", "geli_hf-*.dist-info/*")

    name: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict)
    hardware: str | None = None
    model: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.create_pr and (self.secrets or self.variables or self.hardware):
            raise ValueError(
                "--create-pr: a pull request brings files alone. Leave out --model, --secret, --variable and "
                "--hardware, and set them when it is merged"
            )

    def create(self, api: HfApi) -> None:
        secrets, variables = (
            [{"key": key, "value": value} for key, value in each.items()] for each in (self.secrets, self.variables)
        )
        api.create_repo(
            self.repo,
            repo_type="space",
            space_sdk="gradio",
            private=self.private or None,
            space_secrets=secrets or None,
            space_variables=variables or None,
        )

    def finish(self, api: HfApi, *, new: bool) -> None:
        """A new Space was made with its environment. One that was there gets it after the commit: if that fails, the
        app of before has what it had."""
        steps = {}  # by the option that stands for it
        if not new:
            for key, value in self.secrets.items():
                steps["--secret", key] = partial(api.add_space_secret, self.repo, key, value)
            for key, value in self.variables.items():
                steps["--variable", f"{key}={value}"] = partial(api.add_space_variable, self.repo, key, value)
        if self.hardware:
            steps["--hardware", self.hardware] = partial(api.request_space_hardware, self.repo, self.hardware)
        left = list(steps)
        for step in steps.values():
            try:
                step()
            except Exception as error:
                error.add_note(self._left(left))
                raise
            left.pop(0)

    def _left(self, options: list[tuple[str, str]]) -> str:
        """What to say of options that were not done."""
        told = [" ".join(option).removeprefix("--") for option in options]  # a secret's option has no value
        model = [("--model", self.model)] if self.model else []
        branch = [("--revision", self.revision)] if self.revision else []
        others = [option for option in options if option not in [("--variable", f"{MODEL_VARIABLE}={self.model}")]]
        words = ["geli", "push", "space", self.name, *chain(("--repo", self.repo), *branch, *model, *others)]
        secrets = " (with the value of each secret in the variable of its name)" if "--secret" in dict(options) else ""
        return f"Not set: {', '.join(told)}. This sets just that{secrets}:\n{shlex.join(words)}"

    def merged(self, card: str) -> str:
        return with_versions(card, self.model)


def find_space(name: str) -> Path:
    """The folder of a Space: that of this path, or else of this name in spaces/ of the repository.

    Raises:
        FileNotFoundError: there is none; an installed package brings no spaces/, only a clone of the repository does.
    """
    shipped = PACKAGE.parent / "spaces"
    for folder in (Path(name), shipped / name):
        if (folder / CARD).is_file():
            return folder
    there = ", ".join(sorted(path.parent.name for path in shipped.glob(f"*/{CARD}"))) or "none"
    raise FileNotFoundError(
        f"{name}: no folder with a {CARD}, and no Space of the repository (in {shipped}: {there}). Give the path of a "
        "Space's folder, or run this in a clone of the repository"
    )


def space_card(folder: Path, model: str | None) -> str:
    """The folder's README.md, with what the versions in use make of its front matter."""
    card = with_versions(read_card(folder), model)
    data = SpaceCard(card).data
    if data.sdk != "gradio":
        raise ValueError(f"{folder / CARD}: expected `sdk: gradio` in the front matter, found {data.sdk!r}")
    if data.sdk_version is None:
        raise ValueError(
            f"{folder / CARD}: no sdk_version, and Gradio is not installed here; install the extra `demo`"
        )
    app = data.app_file or "app.py"
    if not (folder / app).is_file():
        raise FileNotFoundError(
            f"{folder}: {app} missing, the app of the Space; `app_file` in {CARD} can name another"
        )
    return card


def with_versions(card: str, model: str | None) -> str:
    """The card with the versions of Gradio and Python in its front matter, and the model among its `models`."""
    described = SpaceCard(card)
    described.data.sdk_version = _installed("gradio") or described.data.sdk_version
    described.data.python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if model is not None:
        described.data.models = list(dict.fromkeys([*(described.data.models or []), model]))
    return str(described)


def space_files(folder: Path, scratch: Path) -> dict[str, Path]:
    """The files of a Space by their path there, without the card.

    Args:
        scratch: a folder for what is written for this push.
    """
    package = _distribution()
    # The second is where an editable install has it.
    metadata = package.read_text("METADATA") or package.read_text("PKG-INFO")
    files = {name: path for name, path in _files(folder) if name != CARD}
    files |= {f"geli_hf/{name}": path for name, path in _files(PACKAGE)}
    written = {
        REQUIREMENTS: requirements(files.get(REQUIREMENTS), package),
        f"geli_hf-{package.version}.dist-info/METADATA": metadata,
    }
    for number, (name, text) in enumerate(written.items()):
        files[name] = scratch / str(number)
        files[name].write_text(text, encoding="utf-8")
    return files


def requirements(path: Path | None, package: Distribution) -> str:
    """What the package and the app need, each in the version that is installed here.

    A line `geli-hf[faces]` of the app stands for what that extra brings. Gradio is left to the card, and a line that
    names no package, or one that is not installed here in such a version, stays as it is.

    Args:
        path: the app's own requirements.txt, if it has one.
    """
    lines = [] if path is None else [re.sub(r"(^|\s)#.*", "", line).strip() for line in path.open(encoding="utf-8")]
    extras, pins, others = {""}, {}, []
    for line in filter(None, lines):
        try:
            asked = Requirement(line)
        except InvalidRequirement:  # an option of pip
            others.append(line)
            continue
        if canonicalize_name(asked.name) == canonicalize_name(package.name):
            extras |= asked.extras
        else:
            pins[canonicalize_name(asked.name)] = _pinned(asked)
    for line in package.requires or ():
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            needed.marker = None
            pins.setdefault(canonicalize_name(needed.name), _pinned(needed))
    pins.pop("gradio", None)
    return "\n".join([*others, *sorted(pins.values()), ""])


def environment(rows: Sequence[str], argument: str) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` alone for what the variable of that name holds here. Messages never tell a value.

    Raises:
        ValueError: it is neither.
    """
    values = {}
    for number, row in enumerate(rows, start=1):
        name, given, value = row.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not (given or name in os.environ):
            raise ValueError(
                f"{argument}, number {number}: expected NAME=VALUE, or the NAME of a variable of the environment"
            )
        values[name] = value if given else os.environ[name]
    return values


def _pinned(asked: Requirement) -> str:
    there = _installed(asked.name)
    if asked.url or there is None or not asked.specifier.contains(there, prereleases=True):
        return str(asked)
    extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
    return f"{asked.name}{extras}=={there}" + (f" ; {asked.marker}" if asked.marker else "")


def _installed(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]  # a build such as 2.15.0+cpu is only where it came from
    except PackageNotFoundError:
        return None


def _distribution() -> Distribution:
    try:
        return distribution("geli-hf")
    except PackageNotFoundError:
        raise FileNotFoundError(
            "geli-hf is not installed, so nothing tells what a Space needs to run it: pip install -e . in the clone"
        ) from None


def _files(folder: Path) -> list[tuple[str, Path]]:
    """What belongs to it, by the path in it."""
    return [
        (path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    ]
