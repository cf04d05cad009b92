"""`geli annotate-video`, from videos and transcripts to Session rows."""

import json
import math
import os
import re
import shutil

import pytest
from faces import film

from geli_hf.affect import annotate as watching
from geli_hf.cli import main
from geli_hf.data import load_sessions
from geli_hf.models.geli_reward.text_geli import valid_unicode


@pytest.fixture
def annotate(recordings, capsys):
    """Run the command on files of the folder; what it printed, its rows, and what it said went wrong."""

    def run(*videos, output="sessions.jsonl", listener="Anna", **options):
        argv = ["annotate-video", *(str(recordings / video) for video in videos), "-o", str(recordings / output)]
        argv += ["--listener", listener] if listener else []
        for name, value in options.items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        problem = ""
        try:
            main(argv)
        except SystemExit as stopped:
            problem = str(stopped.code)
        rows = recordings / output
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
        return capsys.readouterr().out, [json.loads(line) for line in lines], problem

    return run


def test_two_recordings(annotate, recordings, tmp_path):
    (recordings / "scores.csv").write_text("session_id,score\ntwo,3.5\n", encoding="utf-8")
    scores, plots = recordings / "scores.csv", tmp_path / "plots"
    out, rows, problem = annotate("one.mp4", "two.mp4", scores=scores, plot=plots)
    assert problem == ""
    assert out.startswith(f"{recordings / 'sessions.jsonl'}: 2 of 2 recordings, feedback for 2 of 4 turns")
    assert re.search(r"a face in \d\d% of the frames\n$", out)
    assert [(row["session_id"], row["score"]) for row in rows] == [("one", None), ("two", 3.5)]
    for row in rows:
        seen, unseen = row["feedback"]["affect_mean"]
        assert 0.9 < seen <= 1  # the astronaut smiles
        assert unseen is None
        assert row["feedback"]["affect"] == [1.0, None]
        assert row["feedback"]["valence"][0] > 0.8
        assert (plots / f"{row['session_id']}.png").read_bytes().startswith(b"\x89PNG")

    sessions = load_sessions(str(recordings / "sessions.jsonl"))
    assert sessions["feedback"][0]["affect_mean"] == pytest.approx(
        [rows[0]["feedback"]["affect_mean"][0], math.nan], nan_ok=True
    )
    assert not list(tmp_path.rglob("*.jpg"))
    assert not list(recordings.rglob("*.png"))


def test_a_contact_sheet_is_drawn_where_asked_for_and_says_that_it_shows_faces(annotate, recordings, tmp_path):
    out, _, problem = annotate("one.mp4", "two.mp4", contact_sheet=tmp_path / "sheets")
    assert problem == ""
    assert {path.name for path in (tmp_path / "sheets").iterdir()} == {"one.png", "two.png"}
    assert f"{tmp_path / 'sheets'}: shows the listener's face" in out
    _, _, problem = annotate("one.mp4", "two.mp4", contact_sheet=tmp_path / "sheet.png")
    assert "--contact-sheet" in problem


def test_two_faces_of_one_size_are_told(annotate, recordings, monkeypatch):
    always = property(lambda self: self.scans, lambda *_: None)
    monkeypatch.setattr("geli_hf.affect.track.FaceTrack.crowded", always, raising=False)
    out, _, _ = annotate("one.mp4")
    assert "one.mp4: two faces" in out


def test_broken_files_do_not_stop_the_rest(annotate, recordings):
    (recordings / "text.mp4").write_text("no video", encoding="utf-8")
    (recordings / "silent.mp4").write_bytes((recordings / "one.mp4").read_bytes())
    (recordings / "silent.csv").write_text("speaker,text\nAnna,Hi\n", encoding="utf-8")
    shutil.copy(recordings / "one.vtt", recordings / "text.vtt")
    out, rows, problem = annotate("text.mp4", "one.mp4", "silent.mp4")
    assert "1 of 3 recordings" in out
    assert [row["session_id"] for row in rows] == ["one"]
    lines = problem.splitlines()[1:]
    assert len(lines) == 2
    assert any("silent.csv, line 1: " in line for line in lines)
    assert any("text.mp4: " in line for line in lines)


def test_a_cut_video_is_written_up_to_its_end(annotate, recordings):
    """Also when what was seen comes out of the cache."""
    whole = film(recordings / "whole.mkv").read_bytes()
    (recordings / "cut.mkv").write_bytes(whole[: len(whole) * 8 // 10])
    shutil.copy(recordings / "one.vtt", recordings / "cut.vtt")
    for _ in range(2):
        _, rows, problem = annotate("cut.mkv", "one.mp4")
        assert re.search(r"cut\.mkv: .* \d\.\d s", problem)
        assert [row["session_id"] for row in rows] == ["cut", "one"]
        assert rows[0]["feedback"]["affect"] == [1.0, None]


def test_a_picture_that_can_not_be_written_loses_no_session(annotate, recordings):
    (recordings / "plots").write_text("a file")
    _, rows, problem = annotate("one.mp4", "two.mp4", plot=recordings / "plots")
    assert [row["session_id"] for row in rows] == ["one", "two"]
    assert problem.count("plots") == 2


def test_parallel_jobs_give_the_same(annotate, recordings):
    _, alone, _ = annotate("one.mp4", "two.mp4", output="a.jsonl")
    shutil.rmtree(recordings.parent / "cache")
    _, together, _ = annotate("one.mp4", "two.mp4", output="b.jsonl", jobs=2)
    assert alone == together


def test_a_video_is_read_once(annotate, monkeypatch):
    annotate("one.mp4")
    _, first, _ = annotate("one.mp4")

    class Blind:
        fingerprint = watching.load_video_affect().fingerprint

        def __call__(self, *_, **__):
            raise AssertionError("watched again")

    monkeypatch.setattr(watching, "load_video_affect", lambda *how: Blind())
    _, again, problem = annotate("one.mp4")
    assert (again, problem) == (first, "")
    _, _, problem = annotate("two.mp4")
    assert "watched again" in problem


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"listener": "Bob"}, "'Bob'"),
        ({"listener": "Hanna"}, "'Anna'"),
        ({"backend": "nowhere/at-all"}, "nowhere/at-all"),
        ({"detector": "haar"}, "'haar'"),
        ({"face": "middle"}, "face: "),
        ({"fps": 0}, "fps: "),
        ({"transcript": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_invalid_options(annotate, options, problem):
    out, rows, told = annotate("one.mp4", **options)
    assert problem in told
    assert not rows
    assert out == ""


def test_transcripts_and_scores_have_to_fit_the_videos(annotate, recordings):
    (recordings / "one.srt").write_text("", encoding="utf-8")
    assert "found one.srt, one.vtt" in annotate("one.mp4")[2]
    (recordings / "one.srt").unlink()
    scores = recordings / "scores.csv"
    for text, problem in (
        ("session_id,score\nthree,3\n", "'three'"),
        ("session_id,score\none,good\n", "scores.csv, line 2: .*'good'"),
        ("session_id,score\none,4/5\n", "scores.csv, line 2: .*'4/5'"),
        ("session_id,score\none,1e999\n", "scores.csv, line 2: .*'1e999'"),
        ("session_id,score\n,4\n", "scores.csv, line 2: .*session_id"),
        ("session_id,score\none,4\n\none,2\n", "scores.csv, line 4: .*'one'"),
        ("session_id\none\n", "scores.csv, line 1: .*no score"),
        ("", "scores.csv, line 1: .*columns session_id and score"),
    ):
        scores.write_text(text, encoding="utf-8")
        assert re.search(f"--scores: .*{problem}", annotate("one.mp4", scores=scores)[2])
    scores.write_text("session_id,score\none,4,5\n", encoding="utf-8")
    assert "scores.csv, line 2: expected 2 fields" in annotate("one.mp4", scores=scores)[2]
    assert "--plot: " in annotate("one.mp4", "two.mp4", plot=recordings / "all.png")[2]
    assert "'one' is named twice" in annotate("one.mp4", "one.mp4")[2].replace(f"{recordings}/", "")


@pytest.mark.parametrize("head", ["session_id,score\n", "\ufeffscore;note;session_id\n"])
def test_ids_of_a_table_of_scores_are_text(annotate, recordings, head):
    """Excel's tables too: with a byte-order mark, semicolons and rows of nothing."""
    fields = head.strip("\ufeff\n").replace(";", ",").split(",")
    rows = [{"session_id": "NA", "score": "4"}, {"session_id": "001", "score": ""}, {}]
    between = ";" if ";" in head else ","
    lines = [between.join(row.get(field, "") for field in fields) for row in rows]
    (recordings / "scores.csv").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    for old, new in (("one", "NA"), ("two", "001")):
        for suffix in (".mp4", ".vtt"):
            (recordings / f"{old}{suffix}").rename(recordings / f"{new}{suffix}")
    _, rows, problem = annotate("NA.mp4", "001.mp4", scores=recordings / "scores.csv")
    assert problem == ""
    assert [(row["session_id"], row["score"]) for row in rows] == [("NA", 4.0), ("001", None)]


@pytest.mark.parametrize("name", ["rec-10:00:05", "http:", "50 % 'of' \"it\" #1", "%d [a]*?", os.fsdecode(b"caf\xe9")])
def test_any_name_of_a_file_works(annotate, recordings, name):
    folder = recordings / name
    folder.mkdir()
    for suffix in (".mp4", ".vtt"):
        (recordings / f"one{suffix}").rename(folder / f"{name}{suffix}")
    out, rows, problem = annotate(folder / f"{name}.mp4", output=f"{name}/rows.jsonl", plot=folder / "plot.png")
    assert (len(rows), problem) == (1, "")
    assert "1 of 1 recordings" in out
    assert load_sessions(folder / "rows.jsonl")["session_id"][:] == [valid_unicode(name)]


def test_a_broken_character_costs_nothing(annotate, recordings):
    """Half an emoji in a JSON transcript is replaced, and the other recordings are written."""
    (recordings / "one.vtt").unlink()
    said = [("Robot", 0, 1, "I sing \ud83d"), ("Anna", 1, 2, "Oh dear.")]
    entries = [dict(zip(("speaker", "start", "end", "text"), entry)) for entry in said]
    (recordings / "one.json").write_text(json.dumps(entries), encoding="utf-8")
    _, rows, problem = annotate("one.mp4", "two.mp4")
    assert (len(rows), problem) == (2, "")
    assert rows[0]["messages"][0]["content"] == "I sing \ufffd"


def test_a_recording_without_a_transcript_costs_nothing(annotate, recordings):
    (recordings / "one.vtt").unlink()
    _, rows, problem = annotate("one.mp4", "two.mp4", "three.mp4")
    assert [row["session_id"] for row in rows] == ["two"]
    assert "three.mp4: there is no such file" in problem
    assert re.search(r"one\.mp4.*--transcript: expected one of one\.csv, .*found none", problem)
