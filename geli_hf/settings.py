"""Settings of a run: a YAML file with one section per dataclass, overridden on the command line.

The fields of the first dataclass stand at the top of the file and are given as `--name value`; those of the others
stand in a section of their own and are given as `--section.name value`. Values are read as YAML either way.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from .cache import write_text

# Types that YAML can write. Fields of other types are checked by their own class.
TYPES = (bool, int, float, str, list, dict, NoneType)
OTHERS = ("builtins", "transformers", "trl")  # packages that document their hundreds of arguments themselves


class UserError(ValueError):
    """Error of what the user gave; scripts show its message without a traceback."""


class SettingsError(UserError):
    """Error of a setting that does not exist or can't be read. It names the setting and its source."""


def parse_settings(argv: Sequence[str], main: type, sections: Mapping[str, type]) -> dict[str, Any]:
    """Read `--config FILE` and the overrides after it.

    Args:
        argv: the command line without the program's name. `--config` may be given several times: later files override
            earlier ones.
        main: dataclass of the settings at the top.
        sections: dataclasses of the sections, by name.

    Returns:
        The settings as given, a plain dict for each section ("" for the top), all of known names. `build` makes a
        dataclass of such a dict.

    Raises:
        SettingsError: an unknown setting, a missing value, or a file that can't be read.
        SystemExit: after `--help`, which lists the settings.
    """
    if {"-h", "--help"}.intersection(argv):
        sys.stdout.write(_help(main, sections))
        sys.exit()
    settings: dict[str, Any] = {"": {}} | {name: {} for name in sections}
    for source, values in _sources(list(argv)):
        for name, value in _flat(source, values, sections).items():
            section, _, key = name.rpartition(".")
            if section not in settings:
                raise SettingsError(f"{source}: no section {section!r} in {name!r}; there are {', '.join(sections)}")
            names = [field.name for field in fields(sections[section] if section else main)]
            if key not in names:
                close = get_close_matches(key, [*names, *sections], n=3) or sorted(names)
                raise SettingsError(f"{source}: no setting {name!r}; there are {', '.join(close)}")
            settings[section][key] = value
    return settings


def build(cls: type, settings: Mapping[str, Any]) -> Any:
    """Make a dataclass of settings. Numbers in a form that YAML reads as text (`1e-3`) are accepted.

    Args:
        cls: the dataclass.
        settings: values by name of the field.

    Raises:
        SettingsError: a setting is missing, has another type, or is refused by the dataclass itself.
    """
    values, hints = dict(settings), get_type_hints(cls)
    for field in fields(cls):
        if field.name in values:
            values[field.name] = _typed(field, hints[field.name], values[field.name])
    try:
        return HfArgumentParser(cls).parse_dict(values)[0]
    except (TypeError, ValueError) as error:  # of a missing setting, or by a check of the dataclass itself
        raise SettingsError(str(error)) from error


def reserve_folder(folder: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Reserve a folder for a run by writing its settings there, or accept it if the same run is to be resumed.

    Args:
        folder: of the run.
        settings: a dict for each section.
        resume: accept a folder that holds a run with the same settings.

    Raises:
        SettingsError: the folder holds something else.
    """
    record = folder / "settings.yaml"
    if record.exists():
        before = yaml.safe_load(record.read_text(encoding="utf-8"))
        if not resume:
            raise SettingsError(f"output_dir: {folder} holds a run already; --resume goes on with it")
        changed = [
            f"{name}.{key}".lstrip(".")
            for name in settings
            for key in {*before.get(name, {}), *settings[name]}
            if before.get(name, {}).get(key) != settings[name].get(key)
        ]
        if changed:
            raise SettingsError(
                f"output_dir: {folder} holds a run with other settings ({', '.join(sorted(changed))}); "
                "choose another folder, or give the settings that it was begun with"
            )
        return
    if folder.exists() and any(path.suffix != ".partial" for path in folder.iterdir()):
        raise SettingsError(f"output_dir: {folder} holds files of something else; choose an empty or a new folder")
    write_text(record, yaml.safe_dump(settings))


def _help(main: type, sections: Mapping[str, type]) -> str:
    """List all settings with their defaults; of a subclass of another library's class, only its own."""
    lines = ["--config FILE", "    settings as YAML; may be given several times, and what follows overrides it", ""]
    for name, cls in {"": main, **sections}.items():
        bases = [base for base in cls.__mro__ if base.__module__.split(".")[0] not in OTHERS]
        own = {key for base in bases for key in vars(base).get("__annotations__", ())}
        lines += [f"--{name}.NAME: {cls.__name__}" + (f", see {cls.__module__}" if not own else "")] if name else []
        for field in fields(cls):
            if field.name in own:
                default = field.default if field.default_factory is MISSING else field.default_factory()
                given = "needed" if default is MISSING else f"default: {default!r}"
                lines.append(f"{'    ' * bool(name)}--{name}{'.' * bool(name)}{field.name} ({given})")
    return "\n".join([*lines, ""])


def _typed(field: Field, hint: Any, value: Any) -> Any:
    """Convert a value to the type of its field."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [get_origin(kind) or kind for kind in kinds]
    if not set(kinds) <= set(TYPES) or (value is None and field.default is None):
        return value
    if isinstance(value, str) and float in kinds and str not in kinds:
        try:
            return float(value)
        except ValueError:
            pass
    accepted = {*kinds, int} if float in kinds else set(kinds)
    if type(value) not in accepted:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise SettingsError(f"{field.name}: expected {expected}, found {value!r}")
    return value


def _flat(source: str, values: Mapping[str, Any], sections: Mapping[str, type]) -> dict[str, Any]:
    """Name the settings of a section `section.name`."""
    flat = {}
    for name, value in values.items():
        if name not in sections:
            flat[str(name)] = value
        elif isinstance(value, Mapping):
            flat |= {f"{name}.{key}": setting for key, setting in value.items()}
        else:
            raise SettingsError(f"{source}: {name!r} is a section, found {value!r} in place of its settings")
    return flat


def _sources(argv: list[str]):
    """List the files and the command line, later ones overriding earlier ones: a name for messages, and a dict."""
    files, overrides = [], {}
    while argv:
        flag = argv.pop(0)
        if not flag.startswith("--"):
            raise SettingsError(f"command line: expected --name value, found {flag!r}")
        name, equals, value = flag[2:].partition("=")
        if not equals:
            value = argv.pop(0) if argv and not argv[0].startswith("--") else "true"
        if name == "config":
            files.append((value, _read(Path(value))))
        else:
            try:
                overrides[name] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise SettingsError(f"command line: --{name} {value} is not YAML: {error}") from None
    return [*files, ("command line", overrides)]


def _read(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"--config: {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected settings as `name: value`, found {values!r}")
    return values
