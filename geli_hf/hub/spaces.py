"""Spaces to push: an app's folder, this package beside it, and requirements in the versions installed here.

The package lies next to app.py, as a wheel would unpack it. A wheel named in requirements.txt can't be installed: a
Gradio Space is built from that file before the others are there.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from huggingface_hub import HfApi, SpaceCard
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .push import CARD, Push, read_card

PACKAGE = Path(__file__).parents[1]
MODEL_VARIABLE = "GELI_MODEL"  # names the model of an app
REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True, kw_only=True)
class SpacePush(Push):
    """A push of a Space: its files, then the variable that names its model.

    Args:
        model: name of a model on the Hub, for the app and for the card.

    Raises:
        ValueError: a pull request with a model.
    """

    repo_type = "space"
    stale = ("geli_hf/*", "geli_hf-*.dist-info/*")

    model: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.create_pr and self.model:
            raise ValueError("--create-pr: a pull request holds files alone. Set --model when it is merged")

    def create(self, api: HfApi) -> None:
        api.create_repo(self.repo, repo_type="space", space_sdk="gradio", private=self.private or None)

    def finish(self, api: HfApi) -> None:
        """Set the variable after the commit, since a failed one leaves the app as it was."""
        if self.model is not None:
            api.add_space_variable(self.repo, MODEL_VARIABLE, self.model)

    def merged(self, card: str) -> str:
        return with_versions(card, self.model)


def find_space(name: str) -> Path:
    """Find the folder of a Space, by its path or by its name in the repository's spaces/.

    Raises:
        FileNotFoundError: there is none. An installed package has no spaces/, only a clone of the repository has.
    """
    shipped = PACKAGE.parent / "spaces"
    for folder in (Path(name), shipped / name):
        if (folder / CARD).is_file():
            return folder
    raise FileNotFoundError(f"{name}: not a folder with a {CARD}, and no Space in {shipped}")


def space_card(folder: Path, model: str | None) -> str:
    """Text of a Space's README.md, with the versions installed here in its front matter.

    Args:
        folder: of the Space.
        model: added to its `models`.

    Raises:
        ValueError: the Space is not one of Gradio, or Gradio's version is unknown.
        FileNotFoundError: its app is missing.
    """
    card = with_versions(read_card(folder), model)
    data = SpaceCard(card).data
    if data.sdk != "gradio":
        raise ValueError(f"{folder / CARD}: expected `sdk: gradio` in the front matter, found {data.sdk!r}")
    if data.sdk_version is None:
        raise ValueError(
            f"{folder / CARD}: sdk_version is missing, and Gradio is not installed; install the extra `demo`"
        )
    app = data.app_file or "app.py"
    if not (folder / app).is_file():
        raise FileNotFoundError(f"{folder}: {app} missing; `app_file` in {CARD} can name another app")
    return card


def with_versions(card: str, model: str | None) -> str:
    """Put the versions of Gradio and Python into a card's front matter, and the model among its `models`."""
    described = SpaceCard(card)
    described.data.sdk_version = _installed("gradio") or described.data.sdk_version
    described.data.python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if model is not None:
        described.data.models = list(dict.fromkeys([*(described.data.models or []), model]))
    return str(described)


def space_files(folder: Path, scratch: Path) -> dict[str, Path]:
    """Collect the files of a Space by their path in the repository, without the card.

    Args:
        folder: of the Space.
        scratch: where to write files that are made for this push.

    Raises:
        PackageNotFoundError: geli-hf is not installed, so its requirements are unknown.
    """
    package = distribution("geli-hf")
    # An editable install has the second.
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
    """Pin the requirements of the package and of the app to the versions installed here.

    A line `geli-hf[faces]` of the app adds that extra's requirements. The card names Gradio. A line that is not a
    package, or whose version is not installed here, stays as it is.

    Args:
        path: the app's own requirements.txt, if it has one.
        package: the installed geli-hf.
    """
    lines = (
        [] if path is None else [re.sub(r"(^|\s)#.*", "", line).strip() for line in path.open(encoding="utf-8-sig")]
    )
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


def _pinned(asked: Requirement) -> str:
    found = _installed(asked.name)
    if asked.url or found is None or not asked.specifier.contains(found, prereleases=True):
        return str(asked)
    extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
    return f"{asked.name}{extras}=={found}" + (f" ; {asked.marker}" if asked.marker else "")


def _installed(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]  # without a build such as +cpu, which an index may not have
    except PackageNotFoundError:
        return None


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Files below a folder by their path in it, without hidden ones and bytecode."""
    return [
        (path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    ]
