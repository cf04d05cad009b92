"""Settings of a run: a YAML file with one section per dataclass, overridden on the command line.

The fields of the first dataclass stand at the top of the file and are given as `--name value`; those of the others
stand in a section of their own and are given as `--section.name value`. Values are read as YAML either way.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from .cache import whole

# What YAML can write, in words. A field of any other type is left to its own class to check.
TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text (numbers and dates in quotes)",
    list: "a list",
    dict: "a mapping",
    NoneType: "null",
}

OTHERS = ("builtins", "transformers", "trl")  # whose arguments are hundreds, and documented there


class SettingsError(ValueError):
    """A setting that does not exist or can't be read; the message names it and where it was given."""


def parse_settings(argv: Sequence[str], main: type, sections: Mapping[str, type]) -> dict[str, Any]:
    """Read `--config FILE` and the overrides after it.

    Args:
        argv: the command line without the program's name. `--config` may be given several times: later files override
            earlier ones.
        main: dataclass of the settings at the top.
        sections: dataclasses of the sections, by name.

    Returns:
        The settings as given, for each section ("" for the top) a plain dict, checked to have known names only. They
        become dataclasses by `build(cls, settings)`, when their time has come.

    Raises:
        SettingsError: an unknown setting, a value missing, a file that can't be read.
        SystemExit: after `--help`, which tells what settings there are.
    """
    if {"-h", "--help"}.intersection(argv):
        sys.stdout.write(_help(main, sections))
        sys.exit()
    settings: dict[str, Any] = {"": {}} | {name: {} for name in sections}
    for source, values in _sources(list(argv)):
        for name, value in values.items():
            name = str(name)
            if name in sections:
                if not isinstance(value, Mapping):
                    raise SettingsError(f"{source}: {name!r} is a section, found {value!r} in place of its settings")
                for key, each in value.items():
                    key = str(key)  # YAML reads `1:` and `yes:` as what they look like
                    _known(source, f"{name}.{key}", key, sections[name])
                    settings[name][key] = each
                continue
            section, _, key = name.rpartition(".")
            if section not in settings:
                raise SettingsError(f"{source}: no section {section!r} in {name!r}; there are {', '.join(sections)}")
            _known(source, name, key, sections[section] if section else main, sections)
            settings[section][key] = value
    return settings


def build(cls: type, settings: Mapping[str, Any]) -> Any:
    """The dataclass with these settings; numbers written as YAML does not read them (`1e-3`) are taken as numbers."""
    values, hints = dict(settings), get_type_hints(cls)
    for field in fields(cls):
        if field.name in values:
            values[field.name] = _typed(field, hints[field.name], values[field.name])
    try:
        return HfArgumentParser(cls).parse_dict(values)[0]
    except TypeError as error:
        missing = [
            field.name
            for field in fields(cls)
            if field.default is MISSING and field.default_factory is MISSING and field.name not in values
        ]
        raise SettingsError(f"not given: {', '.join(missing)}" if missing else str(error)) from error
    except ValueError as error:  # what the dataclass itself has to say
        raise SettingsError(str(error)) from error


def claim(folder: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Make a folder this run's own by writing its settings there, or go on with the run in it if that has the same.

    Raises:
        SettingsError: the folder holds something else.
    """
    record = folder / "settings.yaml"
    if record.exists():
        before = yaml.safe_load(record.read_text())
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
    with whole(record) as text:
        text.write_text(yaml.safe_dump(settings))


def json_object(text: str, argument: str) -> dict[str, Any]:
    """What a command's argument holds as a JSON object.

    Raises:
        ValueError: it is none; the message names the argument.
    """
    try:
        read = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{argument}: not JSON ({error})") from None
    if not isinstance(read, dict):
        raise ValueError(f"{argument}: expected a JSON object, found {text!r}")
    return read


def _help(main: type, sections: Mapping[str, type]) -> str:
    """All settings with their defaults; of a class of another library only those that ours add to it."""
    lines = ["--config FILE", "    settings as YAML; may be given several times, and what follows overrides it", ""]
    for name, cls in {"": main, **sections}.items():
        ours = [each for each in cls.__mro__ if each.__module__.split(".")[0] not in OTHERS]
        own = {key for each in ours for key in vars(each).get("__annotations__", ())}
        lines += [f"--{name}.NAME: {cls.__name__}" + (f", see {cls.__module__}" if not own else "")] if name else []
        for field in fields(cls):
            if field.name in own:
                default = field.default if field.default_factory is MISSING else field.default_factory()
                given = "needed" if default is MISSING else f"default: {default!r}"
                lines.append(f"{'    ' * bool(name)}--{name}{'.' * bool(name)}{field.name} ({given})")
    return "\n".join([*lines, ""])


def _typed(field: Field, hint: Any, value: Any) -> Any:
    """The value as its field wants it."""
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
        raise SettingsError(f"{field.name}: expected {' or '.join(TYPES[kind] for kind in kinds)}, found {value!r}")
    return value


def _sources(argv: list[str]):
    """The files and the command line, each as a name for messages and a dict, in the order in which they count."""
    given, overrides = [], {}
    while argv:
        flag = argv.pop(0)
        if not flag.startswith("--"):
            raise SettingsError(f"command line: expected --name value, found {flag!r}")
        name, equals, value = flag[2:].partition("=")
        if not equals:
            if argv and not argv[0].startswith("--"):
                value = argv.pop(0)
            elif name != "config":
                value = "true"
        if name == "config":
            given.append((value, _read(Path(value))))
        else:
            try:
                overrides[name] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise SettingsError(f"command line: --{name} {value} is not YAML: {error}") from None
    return [*given, ("command line", overrides)]


def _read(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"--config: there is no file {path}") from None
    except OSError as error:
        raise SettingsError(f"--config: expected a file, found {str(path)!r}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected settings as `name: value`, found {values!r}")
    return values


def _known(source: str, name: str, key: str, cls: type, sections: Mapping[str, type] = {}) -> None:
    from difflib import get_close_matches

    names = [field.name for field in fields(cls)]
    if key not in names:
        close = get_close_matches(key, [*names, *sections], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(names))}"
        raise SettingsError(f"{source}: no setting {name!r}; {hint}")
