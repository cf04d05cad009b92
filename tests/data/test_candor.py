"""CANDOR's layout: whose turns, whose score and whose face a session has, and what can't be read."""

import math
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

from geli_hf.data import read_report
from geli_hf.sessions import SessionError, validate_sessions

ANN, BEN = "ann", "007"
TRANSCRIPT = "transcription/transcript_cliffhanger.csv"


def edit(path, change):
    """Rewrite a CSV file by a function of its table."""
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def zipped(home, name=None, *, top="", extra=()):
    """The conversation's folder as a zip beside it, and the folder gone."""
    path = home.parent / (name or f"{home.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in home.rglob("*") if file.is_file()):
            archive.write(file, f"{top}{file.relative_to(home)}")
        for member in extra:
            archive.writestr(member, "x")
    shutil.rmtree(home)
    return path


def test_the_two_perspectives_are_two_sessions(candor):
    candor.add()
    sessions = candor.load()
    validate_sessions(sessions)
    ann, ben = sessions  # in the order in which the raters first speak
    assert (ann["rater_id"], ben["rater_id"]) == (ANN, BEN)
    assert (ann["session_id"], ann["conversation_id"]) == ("one/ann", "one")
    assert ben["session_id"] == "one/007"

    # Ann rates, so Ben's turns are rewarded. His two rows in a row are one turn; hers, of which his empty one is no
    # interruption, too; and "null" is what she said.
    assert ann["messages"] == [
        {"role": "user", "content": "I have just moved to the sea, finally 🌊"},
        {"role": "assistant", "content": "What made you choose the sea, of all places?"},
        {"role": "user", "content": "null Ich mag Möwen."},
        {"role": "assistant", "content": "Well then, that is that, I suppose."},
    ]
    assert [message["role"] for message in ben["messages"]] == ["assistant", "user", "assistant", "user"]
    assert [message["content"] for message in ben["messages"]] == [message["content"] for message in ann["messages"]]
    assert ann["start"] == ben["start"] == [0, 4, 10, 20]
    assert ann["stop"] == ben["stop"] == [3, 9, 14, 23]

    assert (ann["score"], ben["score"]) == (8, 3)  # what the listener answered

    # Ann's face over Ben's turns: smiling in most seconds of 4 to 9, never seen from 20 on.
    np.testing.assert_array_equal(ann["feedback"]["affect"], [1, math.nan])
    np.testing.assert_allclose(ann["feedback"]["affect_mean"], [(3 * 0.65 + 2 * 0.05) / 5, math.nan], rtol=1e-6)
    # Ben's over hers: smiling from 0 to 3; from 10 to 14 he is seen smiling once, but four words are too short.
    np.testing.assert_array_equal(ben["feedback"]["affect"], [1, 0])
    np.testing.assert_allclose(ben["feedback"]["affect_mean"], [(3 * 0.65 + 0.05) / 4, 0.65], rtol=1e-6)
    assert read_report(sessions).read == 2
    assert str(read_report(sessions)) == "2  sessions read"


@pytest.mark.parametrize(("perspectives", "raters"), [("both", [ANN, BEN]), ("first", [ANN]), ("second", [BEN])])
def test_perspectives(candor, perspectives, raters):
    candor.add()
    assert candor.load(perspectives=perspectives)["rater_id"][:] == raters


def test_any_survey_column_is_a_score(candor):
    candor.add()
    assert candor.load(score="good_for_advice")["score"][:] == [70.5, 20]


def test_without_affect_or_without_features(candor):
    candor.add(faces=None)
    assert "feedback" not in candor.load(affect=False).features
    for session in candor.load():
        for values in session["feedback"].values():
            np.testing.assert_array_equal(values, [math.nan] * 2)


def test_turn_ratings_of_merged_rows_are_their_mean(candor):
    candor.add("one", ratings=[(0, 0.5), (1, 1.0), (2, 2.0), (3, "?"), (5, ""), (6, -1)])
    candor.add("two")
    one_ann, one_ben, two_ann, _ = candor.load()
    np.testing.assert_array_equal(one_ann["turn_rating"], [1.5, -1])
    np.testing.assert_array_equal(one_ben["turn_rating"], [0.5, math.nan])
    np.testing.assert_array_equal(two_ann["turn_rating"], [math.nan] * 2)


def test_another_segmentation(candor):
    home = candor.add()
    edit(home / "transcription" / "transcript_backbiter.csv", lambda table: table.head(2))
    assert [len(messages) for messages in candor.load(segmentation="backbiter")["messages"]] == [2, 2]
    with pytest.raises(SessionError, match=r"2  skipped: transcription/transcript_audiophile\.csv is missing"):
        candor.load(segmentation="audiophile")


@pytest.mark.parametrize("top", ["", "one/", "data/one/"])
def test_a_zip_gives_what_its_folder_gives(candor, top):
    home = candor.add(ratings=[(0, 0.5)])
    from_folder = candor.load()[:]
    zipped(home, top=top, extra=["__MACOSX/._survey.csv"])
    assert str(candor.load()[:]) == str(from_folder)


def test_a_zip_beside_its_folder_is_not_read_twice(candor):
    zipped(candor.add())
    candor.add()
    assert len(candor.load()) == 2


def test_one_conversation_alone(candor):
    home = candor.add()
    candor.path = home
    assert candor.load()["conversation_id"][:] == ["one", "one"]


def break_half_downloaded(home):
    (home / TRANSCRIPT).unlink()


def break_empty_file(home):
    (home / "survey.csv").write_text("")


def break_binary(home):
    (home / TRANSCRIPT).write_bytes(b"turn_id,speaker\n\xff\xfe\x00,\xff")


def break_transcript_column(home):
    edit(home / TRANSCRIPT, lambda table: table.drop(columns=["utterance", "stop"]))


def break_features_column(home):
    edit(home / "audio_video_features.csv", lambda table: table.drop(columns="prob_face_fear"))


def break_score_column(home):
    edit(home / "survey.csv", lambda table: table.drop(columns="overall_affect"))


def break_scores(home):
    edit(home / "survey.csv", lambda table: table.assign(overall_affect=["n/a", ""]))


def break_range(home):
    edit(home / "survey.csv", lambda table: table.assign(overall_affect=[0, 10]))


def break_infinity(home):
    edit(home / "survey.csv", lambda table: table.assign(overall_affect=["inf", "-inf"]))


def break_survey_rows(home):
    edit(home / "survey.csv", lambda table: table.head(0))


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


BROKEN = {
    break_half_downloaded: f"{TRANSCRIPT} is missing (half-downloaded?)",
    break_empty_file: "survey.csv can't be read as CSV",
    break_binary: f"{TRANSCRIPT} can't be read as CSV",
    break_transcript_column: f"{TRANSCRIPT} has no column stop, utterance",
    break_features_column: "audio_video_features.csv has no column prob_face_fear",
    break_score_column: "survey.csv has no column overall_affect",
    break_scores: "no overall_affect from the rater",
    break_range: "overall_affect outside of 1..9",
    break_infinity: "no overall_affect from the rater",
    break_survey_rows: "no overall_affect from the rater",
    break_monologue: "1 speaker in the transcript, not 2",
    break_silence: "0 speakers in the transcript, not 2",
    break_crowd: "3 speakers in the transcript, not 2",
    break_zip: "the zip can't be read (half-downloaded?)",
    break_zip_member: "survey.csv can't be read as CSV",
    break_zip_outside: "the zip has members that point outside of it",
    break_zip_absolute: "the zip has members that point outside of it",
    break_zip_encrypted: "the zip is encrypted; unpack it with its password",
    break_zip_several: "the zip holds several conversations; unpack it",
    break_zip_nested: "the zip holds zips; unpack it",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_what_cannot_be_read_is_skipped_and_counted_by_reason(candor, breaks):
    candor.add("good")
    breaks(candor.add("bad"))
    sessions = candor.load()
    assert set(sessions["conversation_id"]) == {"good"}
    report = read_report(sessions)
    assert (report.read, report.skipped) == (2, {BROKEN[breaks]: 2})
    assert str(report) == f"2  sessions read\n2  skipped: {BROKEN[breaks]}"


def test_a_refused_zip_is_named(candor, caplog):
    from transformers.utils import logging

    candor.add("good")
    break_zip_outside(candor.add("bad"))
    logging.enable_propagation()
    candor.load()
    logging.disable_propagation()
    assert f"{candor.path / 'bad.zip'}: the zip has members that point outside" in caplog.text


def test_one_participant_without_survey(candor):
    candor.add(survey=[{"user_id": BEN, "overall_affect": 3}])
    sessions = candor.load()
    assert sessions["rater_id"][:] == [BEN]
    assert read_report(sessions).skipped == {"no overall_affect from the rater": 1}


def test_of_two_survey_rows_the_first_with_a_score_counts(candor):
    candor.add(
        survey=[
            {"user_id": ANN, "overall_affect": None},
            {"user_id": ANN, "overall_affect": 6},
            {"user_id": ANN, "overall_affect": 2},
        ]
    )
    assert candor.load()["score"][:] == [6]


def test_an_unknown_survey_column_names_those_there_are(candor):
    candor.add()
    with pytest.raises(
        SessionError, match=r"has a column 'overal_affect' of numbers; there are good_for_advice, overall_affect$"
    ):
        candor.load(score="overal_affect")
    with pytest.raises(ValueError, match="'age' describes a person"):
        candor.load(score="age")


@pytest.mark.parametrize("option", ["segmentation", "perspectives"])
def test_an_unknown_value_of_an_option(candor, option):
    candor.add()
    with pytest.raises(ValueError, match=f"{option}: expected one of .*, found 'sideways'"):
        candor.load(**{option: "sideways"})


def test_unknown_times_are_nan_and_so_is_the_affect(candor):
    home = candor.add()
    edit(home / TRANSCRIPT, lambda table: table.replace({"start": {"0": ""}, "stop": {"3.0": "?"}}))
    _, ben = candor.load()
    np.testing.assert_array_equal(ben["start"], [math.nan, 4, 10, 20])
    np.testing.assert_array_equal(ben["stop"], [math.nan, 9, 14, 23])
    np.testing.assert_array_equal(ben["feedback"]["affect"], [math.nan, 0])


def test_nothing_there(candor):
    with pytest.raises(FileNotFoundError, match="holds no conversation"):
        candor.load()
    candor.path = candor.path / "elsewhere"
    with pytest.raises(FileNotFoundError, match="is no folder"):
        candor.load()


def test_three_thousand_turns(candor):
    turns = [((ANN, BEN)[turn % 2], turn, turn + 0.9, f"Line {turn} of a very long evening.") for turn in range(3000)]
    candor.add(turns=turns)
    sessions = candor.load()
    assert [len(messages) for messages in sessions["messages"]] == [3000, 3000]
    assert len(sessions[0]["feedback"]["affect"]) == 1500
