"""Where a CANDOR conversation lies: in a folder, or in a zip that is read in memory and never unpacked to disk.

A zip may say of itself what it likes, so no more than `MOST_BYTES` of a file are ever inflated, and a zip that isn't
what it should be is refused as a whole.
"""

import copy
import os
import struct
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

SURVEY = "survey.csv"
# The features of half an hour are 2 MB, so this is a conversation of more than half a day.
MOST_BYTES = 64 * 2**20
TOO_LARGE = f"is larger than {MOST_BYTES >> 20} MB, which no conversation's is"
# What zipfile makes of a broken file, besides OSError.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


class Unreadable(Exception):
    """A conversation that can't be read; the message is the reason."""


class Folder:
    """A conversation's folder."""

    def __init__(self, path: Path):
        self.path = path

    def has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.path, name))

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if it isn't there."""
        if not self.has(name):
            return None
        try:
            with open(self.path / name, "rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError:
            raise Unreadable(f"{name} can't be read") from None
        if len(data) > MOST_BYTES:
            raise Unreadable(f"{name} {TOO_LARGE}")
        return data


class Zip:
    """A conversation's zip. Its members may stand under one top folder."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (OSError, *BROKEN_ZIP):
            raise Unreadable("the zip can't be read (half-downloaded?)") from None
        self.members = {entry.filename: entry for entry in entries}
        paths = [PureWindowsPath(name) for name in self.members]  # knows backslashes and drives besides slashes
        surveys = [name for name, path in zip(self.members, paths) if path.name == SURVEY]
        if any(path.drive or path.root or ".." in path.parts for path in paths):
            raise Unreadable("the zip has members that point outside of it")
        if any(entry.flag_bits & 1 for entry in entries):
            raise Unreadable("the zip is encrypted; unpack it with its password")
        if any(path.suffix.lower() == ".zip" for path in paths):
            raise Unreadable("the zip holds zips; unpack it")
        if len(surveys) > 1:
            raise Unreadable("the zip holds several conversations; unpack it")
        if len(entries) > len(self.members):
            raise Unreadable("the zip holds two members of one name")
        self.top = surveys[0].removesuffix(SURVEY) if surveys else ""

    def has(self, name: str) -> bool:
        return self.top + name in self.members

    def read(self, name: str) -> bytes | None:
        """The bytes of a member; None if it isn't there."""
        if not self.has(name):
            return None
        member = self.members[self.top + name]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # zipfile can stop inflating these two at a length, and no other.
            raise Unreadable(f"{name} in the zip is not compressed by deflate; unpack it")
        if member.file_size > MOST_BYTES:
            raise Unreadable(f"{name} in the zip {TOO_LARGE}")
        unbounded = copy.copy(member)  # zipfile stops at the size that a member says it has, whatever its true one
        unbounded.file_size = 2 * MOST_BYTES
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(unbounded) as file:
                data = file.read(member.file_size + 1)
        except (OSError, *BROKEN_ZIP):
            raise Unreadable(f"{name} in the zip can't be read (half-downloaded?)") from None
        if len(data) != member.file_size:
            raise Unreadable(f"{name} in the zip is not of the size that the zip says")
        return data


def open_conversation(home: Path) -> Folder | Zip:
    """
    Raises:
        Unreadable: a zip that is broken, or that nobody should open unseen.
    """
    return Zip(home) if home.suffix.lower() == ".zip" and home.is_file() else Folder(home)


def conversations(data_dir: Path) -> list[Path]:
    """The folder or zip of each conversation, in the order of their names; a zip beside its folder is left out.

    Raises:
        FileNotFoundError: there is none.
    """
    if data_dir.suffix.lower() == ".zip" and data_dir.is_file():
        return [data_dir]
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"data_dir: {data_dir} is no folder; it should hold one folder or zip per conversation"
        )
    if (data_dir / SURVEY).is_file() or (data_dir / "transcription").is_dir():
        return [data_dir]
    with os.scandir(data_dir) as entries:
        visible = sorted((entry.name, entry.is_dir()) for entry in entries if entry.name[0] not in "._")
    unpacked = {name for name, is_folder in visible if is_folder}
    homes = [data_dir / name for name in sorted(unpacked)]
    homes += [
        data_dir / name
        for name, is_folder in visible
        if not is_folder and name.lower().endswith(".zip") and name[:-4] not in unpacked
    ]
    if not homes:
        raise FileNotFoundError(f"data_dir: {data_dir} holds no conversation, neither folders nor zips")
    return homes
