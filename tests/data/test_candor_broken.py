"""Broken files of CANDOR: their conversations are skipped, counted by reason, and named."""

import tracemalloc
import zipfile

import pytest
from candor_folder import ANN, BEN, TRANSCRIPT, cut, edit, edit_text, set_size, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geli_hf.data import read_report
from geli_hf.data.candor import open_corpus
from geli_hf.data.candor_files import MOST_BYTES, Unreadable, open_conversation, read_file
from geli_hf.sessions import SessionError

BOMB = MOST_BYTES + (1 << 20)
SURVEY, FEATURES = "survey.csv", "audio_video_features.csv"


def truncate(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


def append(path, data):
    path.write_bytes(path.read_bytes() + data)


def cut_within_quotes(path):
    cut(path, at=path.read_bytes().index(b"I suppose"))


def zipped_with_flipped_bytes(home, before, data):
    path = zipped(home)
    content = bytearray(path.read_bytes())
    at = content.index(before)
    content[at : at + len(data)] = data
    path.write_bytes(content)


def zipped_with_encryption_flag(home):
    path = zipped(home)
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:  # the entries of the directory, whose flags stand at byte 8
        data[at + 8] |= 1
        at += 4
    path.write_bytes(data)


def zipped_bomb(home, size=None):
    path = zipped(home, compression=zipfile.ZIP_DEFLATED, huge={SURVEY: BOMB})
    if size is not None:
        set_size(path, SURVEY, size)


# What breaks a conversation, and what the reason names.
BROKEN_FILES = {
    "absent": (lambda home: (home / TRANSCRIPT).unlink(), [TRANSCRIPT, "missing"]),
    "empty": (lambda home: (home / SURVEY).write_text(""), [SURVEY, "CSV"]),
    "binary": (lambda home: append(home / TRANSCRIPT, b"7,\xff,1,2,\xfe\x00,1\n"), [TRANSCRIPT, "CSV"]),
    "transcript columns": (
        lambda home: edit(home / TRANSCRIPT, lambda table: table.drop(columns=["utterance", "stop"])),
        [TRANSCRIPT, "stop, utterance"],
    ),
    "features column": (
        lambda home: edit(home / FEATURES, lambda table: table.drop(columns="prob_face_fear")),
        [FEATURES, "prob_face_fear"],
    ),
    "score column": (
        lambda home: edit(home / SURVEY, lambda table: table.drop(columns="overall_affect")),
        [SURVEY, "overall_affect"],
    ),
    "two score columns": (
        lambda home: edit_text(home / SURVEY, lambda text: text.replace("good_for_advice", "overall_affect")),
        [SURVEY, "two columns overall_affect"],
    ),
    "row cut": (lambda home: cut(home / FEATURES, at=-60), [FEATURES, "too few"]),
    "last field cut": (lambda home: cut(home / FEATURES, at=-5), [FEATURES, "prob_face_surprise"]),
    "last line break cut": (lambda home: cut(home / FEATURES, at=-1), [FEATURES, "prob_face_surprise"]),
    "quotes cut": (lambda home: cut_within_quotes(home / TRANSCRIPT), [TRANSCRIPT, "quotes"]),
    "row too long": (
        lambda home: edit_text(home / TRANSCRIPT, lambda text: text.replace("What made", "What, made")),
        [TRANSCRIPT, "too many"],
    ),
    "row too short": (
        lambda home: edit_text(home / TRANSCRIPT, lambda text: text.replace("1,007,4,6.0,", "1,007,4,")),
        [TRANSCRIPT, "too few"],
    ),
    "huge": (lambda home: truncate(home / TRANSCRIPT, BOMB), [TRANSCRIPT, "64 MB"]),
    "one speaker": (
        lambda home: edit(home / TRANSCRIPT, lambda table: table[table["speaker"] == ANN]),
        ["speakers", "1"],
    ),
    "no speaker": (
        lambda home: edit(home / TRANSCRIPT, lambda table: table.assign(utterance=" ")),
        ["speakers", "0"],
    ),
    "three speakers": (
        lambda home: edit(
            home / TRANSCRIPT, lambda table: table.assign(speaker=[ANN, BEN, "eve", ANN, BEN, ANN, BEN])
        ),
        ["speakers", "3"],
    ),
}
BROKEN_ZIPS = {
    "cut": (lambda home: cut(zipped(home), at=200), ["zip can't be read"]),
    "member": (lambda home: zipped_with_flipped_bytes(home, b"overall_affect", b"0000"), [SURVEY, "can't be read"]),
    "encrypted": (zipped_with_encryption_flag, [SURVEY, "can't be read"]),
    "two conversations": (lambda home: zipped(home, top="one/", extra=["two/survey.csv"]), ["2 survey.csv"]),
    "compression": (lambda home: zipped(home, compression=zipfile.ZIP_BZIP2), ["deflate"]),
    "bomb": (zipped_bomb, [SURVEY, "64 MB"]),
    "bomb with a small size": (lambda home: zipped_bomb(home, size=100), [SURVEY, "can't be read"]),
    "size too small": (lambda home: set_size(zipped(home), SURVEY, 20), [SURVEY, "can't be read"]),
}


@pytest.mark.parametrize(
    ("name", "breaks", "words"),
    [
        *(pytest.param("bad", *case, id=f"file-{name}") for name, case in BROKEN_FILES.items()),
        *(pytest.param("bad.zip", *case, id=f"zip-{name}") for name, case in BROKEN_ZIPS.items()),
    ],
)
def test_a_broken_conversation_is_skipped_counted_and_named(candor, name, breaks, words, caplog):
    candor.add("good")
    breaks(candor.add("bad"))
    sessions = candor.load()
    assert set(sessions["conversation_id"]) == {"good"}
    report = read_report(sessions)
    [reason] = report.skipped
    assert all(word in reason for word in words)
    assert (report.read, report.skipped, report.files) == (2, {reason: 2}, {reason: [name]})
    [record] = caplog.records
    assert record.getMessage().endswith(f"2  skipped: {reason}: {name}")


@pytest.mark.parametrize("name", [SURVEY, TRANSCRIPT, "turn_ratings.csv"])
def test_of_a_file_that_is_cut_anywhere_complete_rows_are_read_or_none(candor, name):
    path = candor.add(ratings=[(0, 0.51), (1, 0.52), (6, 1.25)], faces=None) / name
    data = path.read_bytes()
    read = open_corpus(candor.path).rows
    assert isinstance(next(read()), dict)

    def rows(end):
        path.write_bytes(data[:end])
        try:
            return [row for row in read() if isinstance(row, dict)]
        except SessionError:  # the heading lost the column of the score
            return []

    row_ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    complete = {end: rows(end) for end in [0, *row_ends]}
    assert complete[len(data)] != []
    for end in range(len(data)):
        before, after = max([0, *(at for at in row_ends if at <= end)]), min(at for at in row_ends if at > end)
        assert str(rows(end)) in ("[]", str(complete[before]), str(complete[after])), data[before:end]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_zip_with_wrong_bytes_is_read_or_unreadable(candor, data):
    path, original = candor.path / "one.zip", candor.path.parent / "original"
    if not original.exists():
        zipped(candor.add(), compression=zipfile.ZIP_DEFLATED).rename(original)
    content = bytearray(original.read_bytes())
    at = data.draw(st.integers(1, len(content)), label="bytes from the end, where the directory stands")
    content[-at:] = data.draw(st.binary(min_size=1, max_size=8)) + content[len(content) - at :][8:]
    path.write_bytes(content)
    try:
        files = open_conversation(path)
        for name in (SURVEY, TRANSCRIPT, FEATURES):
            assert len(read_file(files, name)) <= MOST_BYTES
    except Unreadable:  # and no other error
        pass


@pytest.mark.parametrize("answers", [["n/a", ""], [0, 10], ["inf", "-inf"], []], ids=str)
def test_sessions_without_a_rating_are_skipped_and_counted(candor, answers):
    candor.add("good")
    edit(
        candor.add("bad") / SURVEY,
        lambda table: table.head(len(answers)).assign(overall_affect=answers),
    )
    report = read_report(candor.load())
    [(reason, count)] = report.skipped.items()
    assert "overall_affect" in reason
    assert (report.read, count, report.files) == (2, 2, {})


def test_an_error_names_the_zip_that_is_all_there_is(candor):
    zipped_with_encryption_flag(candor.add("bad"))
    with pytest.raises(SessionError, match=r"0  sessions read\n2  skipped: survey\.csv .*: bad\.zip"):
        candor.load()


@pytest.mark.parametrize("size", [4 * MOST_BYTES, 100])
def test_a_bomb_is_inflated_within_bounds(candor, size):
    path = zipped(candor.add(), compression=zipfile.ZIP_DEFLATED, huge={SURVEY: 4 * MOST_BYTES})
    assert path.stat().st_size < 1 << 20
    set_size(path, SURVEY, size)
    tracemalloc.start()
    with pytest.raises(Unreadable, match=r"survey\.csv"):
        read_file(open_conversation(path), SURVEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MOST_BYTES
