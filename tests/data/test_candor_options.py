"""Options of CANDOR: several scores, back-channels and behaviour in words, and several processes."""

import math

import numpy as np
import pytest
from candor_folder import ANN, BEN, same, seconds, zipped

from geli_hf.data import load_sessions, read_report
from geli_hf.sessions import SessionError, validate_sessions

# -- several scores


def test_several_scores(candor):
    candor.add(
        survey=[
            {"user_id": ANN, "overall_affect": 8, "how_enjoyable": 5.5, "good_for_advice": 101},
            {"user_id": BEN, "overall_affect": 3, "how_enjoyable": "", "good_for_advice": 20},
        ]
    )
    candor.add(
        "two",
        survey=[{"user_id": ANN, "overall_affect": 4, "good_for_advice": ""}, {"user_id": BEN, "how_enjoyable": 2}],
    )
    names = ["overall_affect", "how_enjoyable", "good_for_advice"]
    sessions = candor.load(score=names)
    validate_sessions(sessions)
    assert sessions["score"][:] == [8, 3, 4]
    np.testing.assert_array_equal(
        [[row["scores"][name] for name in names] for row in sessions],
        [[8, 5.5, math.nan], [3, math.nan, 20], [4, math.nan, math.nan]],  # 101 is none of 0..100
    )
    assert list(read_report(sessions).skipped.values()) == [1]
    assert "scores" not in candor.load(score="how_enjoyable").features
    assert candor.load(score=["how_enjoyable"])[0]["scores"] == {"how_enjoyable": 5.5}


def test_free_text_in_another_encoding_does_not_matter(candor):
    home = candor.add("a")
    scores = {"overall_affect": 4, "good_for_advice": 50}
    candor.add("b", survey=[{"user_id": ANN, **scores}, {"user_id": BEN, **scores}])
    data = (home / "survey.csv").read_bytes()
    data = data.replace(b"user_id,", b"remarks,user_id,").replace(b"ann,007", b"caf\xe9,ann,007")
    (home / "survey.csv").write_bytes(data.replace(b"007,ann", b",007,ann"))
    sessions = candor.load(score=["overall_affect", "good_for_advice"])
    assert sessions["score"][:] == [8, 3, 4, 4]
    assert sessions[0]["scores"]["good_for_advice"] == 70.5


def test_a_further_score_that_no_survey_has(candor):
    candor.add()
    with pytest.raises(SessionError, match=r"no column how_enjoable: one"):
        candor.load(score=["overall_affect", "how_enjoable"])


# -- several processes


def test_two_processes_give_what_one_gives(candor, tmp_path):
    for number in range(12):
        candor.add(f"{number:02d}")
    (candor.path / "03" / "survey.csv").unlink()
    zipped(candor.path / "07", extra=["two/survey.csv"])
    one, two = (load_sessions("candor", data_dir=candor.path, cache_dir=tmp_path / str(n), num_proc=n) for n in (1, 2))
    assert len(one) == 20
    assert same(one, two)
    assert one.features == two.features
    assert read_report(one) == read_report(two)
    assert len(read_report(two).files) == 2
    # One cache for all of them.
    assert [path.name for path in (tmp_path / "1").iterdir()] == [path.name for path in (tmp_path / "2").iterdir()]


def test_behaviour_in_words(candor):
    """Describe eyes and voice only where the features have them, and only of the rater's own rows."""
    shown = [*seconds(ANN, *["neutral"] * 4, "neutral", *["happiness"] * 5, *["neutral"] * 10)]
    shown += seconds(ANN, None, None, None, None, first=20)
    eyes = [{**row, "gaze": 0 if second in (8, 9) else 1} for second, row in enumerate(shown)]
    voice = [{**row, "pitch": 0, "intensity": 80 if second >= 20 else 50} for second, row in enumerate(eyes)]
    for name, faces in (("face", shown), ("eyes", eyes), ("voice", voice)):
        candor.add(name, faces=[*faces, *seconds(BEN, "sadness")])
    words = {row["session_id"]: row["behaviour"] for row in candor.load(behaviour=True)}
    smiles = "listener smiles through most of this turn"
    assert words["face/ann"] == [smiles, ""]
    assert words["eyes/ann"] == [f"{smiles}, looks away at the end", ""]
    assert words["voice/ann"] == [f"{smiles}, looks away at the end", "listener is louder than usual"]
    assert words["face/007"] == ["listener looks sad throughout this turn", ""]
    assert "behaviour" not in candor.load().features


def test_behaviour_without_features(candor):
    candor.add(faces=None)
    assert candor.load(behaviour=True)["behaviour"][:] == [["", ""], ["", ""]]
