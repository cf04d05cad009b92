"""CANDOR's layout: the turns, the score and the face of each session."""

import math

import numpy as np
import pandas as pd
import pytest
from candor_folder import ANN, BEN, FACES, TRANSCRIPT, edit, same, seconds, zipped

from geli_hf.data import read_report
from geli_hf.sessions import SessionError, validate_sessions


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


def test_any_survey_column_is_a_score(candor):
    candor.add()
    assert candor.load(score="good_for_advice")["score"][:] == [70.5, 20]


def test_without_features_nothing_was_observed(candor):
    candor.add(faces=None)
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
    with pytest.raises(SessionError, match=r"transcription/transcript_audiophile\.csv"):
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


def test_one_participant_without_survey(candor):
    candor.add(survey=[{"user_id": BEN, "overall_affect": 3}])
    sessions = candor.load()
    assert sessions["rater_id"][:] == [BEN]
    assert list(read_report(sessions).skipped.values()) == [1]


def test_of_two_survey_rows_the_first_with_a_score_counts(candor):
    candor.add(
        survey=[
            {"user_id": ANN, "overall_affect": None},
            {"user_id": ANN, "overall_affect": 6},
            {"user_id": ANN, "overall_affect": 2},
        ]
    )
    assert candor.load()["score"][:] == [6]


def test_an_unknown_survey_column_is_named(candor):
    candor.add()
    with pytest.raises(SessionError, match=r"2  skipped: survey\.csv has no column overal_affect: one"):
        candor.load(score="overal_affect")


@pytest.mark.parametrize("score", ["age", [], ["overall_affect", "age"]])
def test_a_column_that_describes_a_person_is_no_score(candor, score):
    candor.add()
    with pytest.raises(ValueError, match=r"^score: "):
        candor.load(score=score)


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


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(candor):
    home = candor.add(ratings=[(0, 0.5), (6, 1)])
    before = candor.load()
    for file in home.rglob("*.csv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert same(candor.load(), before)


def test_lines_within_an_utterance(candor):
    home = candor.add()
    edit(home / TRANSCRIPT, lambda table: table.replace("What made you choose", 'What "made"\r\nyou, choose'))
    assert candor.load()[0]["messages"][1]["content"] == 'What "made"\r\nyou, choose the sea, of all places?'


def test_the_last_line_break_may_be_absent_after_a_column_that_is_not_read(candor):
    home = candor.add()
    before = candor.load()
    path = home / TRANSCRIPT
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # its last column, n_words, is not read
    assert same(candor.load(), before)


@pytest.mark.parametrize("bare", [b"", b"\n", b"heading"])
def test_features_that_are_empty_are_none(candor, bare):
    home = candor.add()
    path = home / "audio_video_features.csv"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] if bare == b"heading" else bare)
    for session in candor.load():
        np.testing.assert_array_equal(session["feedback"]["affect"], [math.nan] * 2)


def test_other_people_and_the_order_of_rows_do_not_matter(candor):
    candor.add("one")
    candor.add("two", faces=[*reversed(FACES), *seconds("eve", *["happiness"] * 30)])
    one, _, two, _ = candor.load()
    assert str(one["feedback"]) == str(two["feedback"])


@pytest.mark.parametrize("form", ["00:00:{:02d}", "{}", "{}.0", "0 days 00:00:{:02d}.000000"])
def test_the_forms_of_a_time(candor, form):
    candor.add("one")
    edit(
        candor.add("two") / "audio_video_features.csv",
        lambda table: table.assign(timedelta=[form.format(int(time[-2:])) for time in table["timedelta"]]),
    )
    one, _, two, _ = candor.load()
    np.testing.assert_array_equal(one["feedback"]["affect"], [1, math.nan])
    assert str(one["feedback"]) == str(two["feedback"])


def test_a_second_without_time_or_probability_is_not_seen(candor):
    # Ann's seconds 7 to 9 while Ben asks: the smile of 7 has no time, and that of 9 no number. What is left is a
    # neutral face, the smile of 5, and a sad one: of equally frequent ones happiness comes first.
    table = pd.DataFrame(FACES).astype(object)
    at = {second: int(table.index[(table["user_id"] == ANN)][second]) for second in (7, 9)}
    table.loc[at[7], "timedelta"] = "later"
    table.loc[at[9], "prob_face_fear"] = "?"
    candor.add(faces=table)
    ann, _ = candor.load()
    np.testing.assert_array_equal(ann["feedback"]["affect"], [1, math.nan])
    np.testing.assert_allclose(ann["feedback"]["affect_mean"], [(0.65 + 2 * 0.05) / 3, math.nan], rtol=1e-6)


def test_several_rows_of_one_second(candor):
    # While Ben asks, Ann's 4 to 9: neutral, happiness, no face, happiness, sadness, happiness.
    again = seconds(ANN, "happiness", first=5)
    candor.add("again", faces=[*FACES, *again, *again])
    candor.add("contradicted", faces=[*FACES, *seconds(ANN, "sadness", first=5)])
    candor.add("unseen", faces=[*FACES, *seconds(ANN, None, first=5), *seconds(ANN, "happiness", first=6)])
    means = {
        row["conversation_id"]: row["feedback"]["affect_mean"][0] for row in candor.load() if row["rater_id"] == ANN
    }
    assert means["again"] == pytest.approx((3 * 0.65 + 2 * 0.05) / 5)  # as if there were one
    assert means["contradicted"] == pytest.approx((2 * 0.65 + 2 * 0.05) / 4)  # without second 5
    assert means["unseen"] == pytest.approx((4 * 0.65 + 2 * 0.05) / 6)  # no face is no contradiction


def test_overlapping_negative_and_reversed_times(candor):
    turns = [
        (BEN, -1.5, 1.2, "I am early, am I not, my dear?"),  # hears nothing of Ann; her seconds 0 and 1
        (ANN, 0.5, 3.0, "Not at all, I was here before you."),  # while he still talks
        (BEN, 9.0, 4.0, "This one was written down the wrong way."),
        (ANN, 10.0, 14.0, "And so"),
        (ANN, 11.0, 12.0, "did I, with that one."),
        (BEN, 15.0, 16.0, "Row one tells its time,"),
        (BEN, "", 17.0, "row two does not."),
    ]
    candor.add(turns=turns)
    ben, ann = candor.load()
    np.testing.assert_array_equal(ann["start"], [-1.5, 0.5, 9, 10, math.nan])
    np.testing.assert_array_equal(ann["stop"], [np.float32(1.2), 3, 4, 14, 17])
    # Ann's face: neutral at 0 and 1, nothing between 9 and 4, and nobody knows when the last turn was.
    np.testing.assert_array_equal(ann["feedback"]["affect"], [0, math.nan, math.nan])
    # Ben's: happiness, surprise, happiness at 1, 2, 3, and one smile at 14, within the longer one of two rows.
    np.testing.assert_array_equal(ben["feedback"]["affect"], [1, 1])
    np.testing.assert_allclose(ben["feedback"]["affect_mean"], [(2 * 0.65 + 0.05) / 3, 0.65], rtol=1e-6)
