"""What of CANDOR can't be read is skipped, counted by its reason and named."""

import tracemalloc
import zipfile

import pytest
from candor_folder import ANN, BEN, TRANSCRIPT, cut, edit, edit_text, says_size, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geli_hf.data import read_report
from geli_hf.data.candor import open_corpus
from geli_hf.data.candor_files import MOST_BYTES, Unreadable, open_conversation
from geli_hf.sessions import SessionError

BOMB = MOST_BYTES + (1 << 20)


def break_half_downloaded(home):
    (home / TRANSCRIPT).unlink()


def break_empty_file(home):
    (home / "survey.csv").write_text("")


def break_binary(home):
    path = home / TRANSCRIPT
    path.write_bytes(path.read_bytes() + b"7,\xff,1,2,\xfe\x00,1\n")


def break_transcript_column(home):
    edit(home / TRANSCRIPT, lambda table: table.drop(columns=["utterance", "stop"]))


def break_features_column(home):
    edit(home / "audio_video_features.csv", lambda table: table.drop(columns="prob_face_fear"))


def break_score_column(home):
    edit(home / "survey.csv", lambda table: table.drop(columns="overall_affect"))


def break_monologue(home):
    edit(home / TRANSCRIPT, lambda table: table[table["speaker"] == ANN])


def break_silence(home):
    edit(home / TRANSCRIPT, lambda table: table.assign(utterance=" "))


def break_crowd(home):
    edit(home / TRANSCRIPT, lambda table: table.assign(speaker=[ANN, BEN, "eve", ANN, BEN, ANN, BEN]))


def break_zip(home):
    path = zipped(home)
    path.write_bytes(path.read_bytes()[:200])


def break_zip_member(home):
    path = zipped(home)
    data = bytearray(path.read_bytes())
    at = data.index(b"overall_affect")
    data[at : at + 4] = b"0000"
    path.write_bytes(data)


def break_zip_outside(home):
    zipped(home, extra=["../evil.csv"])


def break_zip_absolute(home):
    zipped(home, extra=["/etc/evil.csv"])


def break_zip_encrypted(home):
    path = zipped(home)
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:  # the entries of the directory, whose flags stand at byte 8
        data[at + 8] |= 1
        at += 4
    path.write_bytes(data)


def break_zip_several(home):
    zipped(home, top="one/", extra=["two/survey.csv"])


def break_zip_nested(home):
    (home / "survey.csv").unlink()
    zipped(home, extra=["inner/one.zip"])


def break_zip_drive(home):
    zipped(home, extra=["C:\\evil.csv"])


def break_zip_beside(home):
    zipped(home, extra=["processed/media.ZIP"])


def break_zip_twice(home):
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(home, extra=["survey.csv"])


def break_zip_compression(home):
    zipped(home, compression=zipfile.ZIP_BZIP2)


def break_zip_bomb(home):
    zipped(home, compression=zipfile.ZIP_DEFLATED, huge={"survey.csv": BOMB})


def break_zip_bomb_that_says_little(home):
    path = zipped(home, compression=zipfile.ZIP_DEFLATED, huge={"survey.csv": BOMB})
    says_size(path, "survey.csv", 100)


def break_zip_that_says_much(home):
    says_size(zipped(home), "survey.csv", BOMB)


def break_zip_that_says_too_little(home):
    says_size(zipped(home), "survey.csv", 20)  # the heading and no more, as it were


def break_row_cut(home):
    cut(home / "audio_video_features.csv", at=-60)


def break_last_field_cut(home):
    cut(home / "audio_video_features.csv", at=-5)  # all fields are there, and the last one says something else


def break_last_line_break(home):
    cut(home / "audio_video_features.csv", at=-1)  # as far as anybody can tell, the same


def break_quotes_cut(home):
    data = (home / TRANSCRIPT).read_bytes()
    assert b'"Well then, that is that, I suppose."' in data
    cut(home / TRANSCRIPT, at=data.index(b"I suppose"))


def break_row_too_long(home):
    edit_text(home / TRANSCRIPT, lambda text: text.replace("What made you choose", "What, made you choose"))


def break_row_too_short(home):
    edit_text(home / TRANSCRIPT, lambda text: text.replace("1,007,4,6.0,", "1,007,4,"))


def break_column_twice(home):
    edit_text(home / "survey.csv", lambda text: text.replace("good_for_advice", "overall_affect"))


def break_huge_file(home):
    with (home / TRANSCRIPT).open("r+b") as file:
        file.truncate(BOMB)  # a hole on disk, not that many bytes


BROKEN = {
    break_half_downloaded: f"{TRANSCRIPT} is missing (half-downloaded?)",
    break_empty_file: "survey.csv can't be read as CSV",
    break_binary: f"{TRANSCRIPT} can't be read as CSV",
    break_transcript_column: f"{TRANSCRIPT} has no column stop, utterance",
    break_features_column: "audio_video_features.csv has no column prob_face_fear",
    break_score_column: "survey.csv has no column overall_affect",
    break_column_twice: "survey.csv has two columns overall_affect",
    break_row_cut: "audio_video_features.csv has a row of too few or too many fields (cut off?)",
    break_last_field_cut: "audio_video_features.csv ends without a line break after prob_face_surprise (cut off?)",
    break_last_line_break: "audio_video_features.csv ends without a line break after prob_face_surprise (cut off?)",
    break_quotes_cut: f"{TRANSCRIPT} ends within quotes (cut off?)",
    break_row_too_long: f"{TRANSCRIPT} has a row of too few or too many fields (cut off?)",
    break_row_too_short: f"{TRANSCRIPT} has a row of too few or too many fields (cut off?)",
    break_huge_file: f"{TRANSCRIPT} is larger than 64 MB, which no conversation's is",
    break_monologue: "1 speaker in the transcript, not 2",
    break_silence: "0 speakers in the transcript, not 2",
    break_crowd: "3 speakers in the transcript, not 2",
    break_zip: "the zip can't be read (half-downloaded?)",
    break_zip_member: "survey.csv in the zip can't be read (half-downloaded?)",
    break_zip_outside: "the zip has members that point outside of it",
    break_zip_absolute: "the zip has members that point outside of it",
    break_zip_drive: "the zip has members that point outside of it",
    break_zip_encrypted: "the zip is encrypted; unpack it with its password",
    break_zip_several: "the zip holds several conversations; unpack it",
    break_zip_nested: "the zip holds zips; unpack it",
    break_zip_beside: "the zip holds zips; unpack it",
    break_zip_twice: "the zip holds two members of one name",
    break_zip_compression: "survey.csv in the zip is not compressed by deflate; unpack it",
    break_zip_bomb: "survey.csv in the zip is larger than 64 MB, which no conversation's is",
    break_zip_bomb_that_says_little: "survey.csv in the zip is not of the size that the zip says",
    break_zip_that_says_much: "survey.csv in the zip is larger than 64 MB, which no conversation's is",
    break_zip_that_says_too_little: "survey.csv in the zip is not of the size that the zip says",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_what_cannot_be_read_is_skipped_and_counted_by_reason_and_named(candor, breaks, caplog):
    candor.add("good")
    breaks(candor.add("bad"))
    sessions = candor.load()
    assert set(sessions["conversation_id"]) == {"good"}
    name = "bad.zip" if breaks.__name__.startswith("break_zip") else "bad"
    report = read_report(sessions)
    assert (report.read, report.skipped, report.files) == (2, {BROKEN[breaks]: 2}, {BROKEN[breaks]: [name]})
    assert str(report) == f"2  sessions read\n2  skipped: {BROKEN[breaks]}: {name}"
    [record] = caplog.records  # nobody asked for more than warnings
    assert record.getMessage() == f"Not every session of {candor.path} could be read:\n{report}"


@pytest.mark.parametrize("name", ["survey.csv", TRANSCRIPT, "turn_ratings.csv"])
def test_wherever_a_file_is_cut_whole_rows_are_read_or_none(candor, name):
    path = candor.add(ratings=[(0, 0.51), (1, 0.52), (6, 1.25)]) / name
    data = path.read_bytes()
    read = open_corpus(candor.path, affect=False).rows
    assert isinstance(next(read()), dict)

    def rows(end):
        path.write_bytes(data[:end])
        return [row for row in read() if isinstance(row, dict)]

    row_ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    of_whole_rows = {end: rows(end) for end in [0, *row_ends]}
    assert of_whole_rows[len(data)] != []
    for end in range(len(data)):
        before, after = max([0, *(at for at in row_ends if at <= end)]), min(at for at in row_ends if at > end)
        assert str(rows(end)) in ("[]", str(of_whole_rows[before]), str(of_whole_rows[after])), data[before:end]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_of_a_zip_are_lost_it_is_skipped_or_read(candor, data):
    path = candor.path / "one.zip"
    if not path.exists():
        zipped(candor.add(), compression=zipfile.ZIP_DEFLATED)
        path.rename(candor.path.parent / "whole")
    whole = bytearray((candor.path.parent / "whole").read_bytes())
    at = data.draw(st.integers(1, len(whole)), label="bytes from the end, where the directory stands")
    whole[-at:] = data.draw(st.binary(min_size=1, max_size=8)) + whole[len(whole) - at :][8:]
    path.write_bytes(whole)
    try:
        source = open_conversation(path)
        for name in ("survey.csv", TRANSCRIPT, "audio_video_features.csv"):
            assert source.read(name) is None or len(source.read(name)) <= MOST_BYTES
    except Unreadable:  # and no other error
        pass


def break_scores(home):
    edit(home / "survey.csv", lambda table: table.assign(overall_affect=["n/a", ""]))


def break_range(home):
    edit(home / "survey.csv", lambda table: table.assign(overall_affect=[0, 10]))


def break_infinity(home):
    edit(home / "survey.csv", lambda table: table.assign(overall_affect=["inf", "-inf"]))


def break_survey_rows(home):
    edit(home / "survey.csv", lambda table: table.head(0))


UNRATED = {
    break_scores: "no overall_affect from the rater",
    break_range: "overall_affect outside of 1..9",
    break_infinity: "no overall_affect from the rater",
    break_survey_rows: "no overall_affect from the rater",
}


@pytest.mark.parametrize("breaks", UNRATED, ids=lambda breaks: breaks.__name__)
def test_sessions_without_a_rating_are_skipped_and_counted_by_reason(candor, breaks):
    candor.add("good")
    breaks(candor.add("bad"))
    report = read_report(candor.load())
    assert (report.read, report.skipped, report.files) == (2, {UNRATED[breaks]: 2}, {})


def test_a_zip_that_is_all_there_is_is_named_in_the_error(candor):
    break_zip_encrypted(candor.add("bad"))
    with pytest.raises(SessionError, match=r"0  sessions read\n2  skipped: the zip is encrypted.*: bad\.zip"):
        candor.load()


def test_no_more_of_a_bomb_is_inflated_than_a_conversation_may_have(candor):
    home = candor.add()
    path = zipped(home, compression=zipfile.ZIP_DEFLATED, huge={"survey.csv": 4 * MOST_BYTES})
    assert path.stat().st_size < 1 << 20
    for said in (4 * MOST_BYTES, 100):
        says_size(path, "survey.csv", said)
        tracemalloc.start()
        with pytest.raises(Unreadable, match=r"survey\.csv in the zip is (larger than 64 MB|not of the size)"):
            open_conversation(path).read("survey.csv")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * MOST_BYTES
