"""The sample corpus on disk: CANDOR's layout, the same bytes for the same seed, and true ratings."""

import csv
import hashlib
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from geli_hf.simulator.corpus import true_turn_value, write_sample


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> str:
    hashed = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        hashed.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return hashed.hexdigest()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample"), conversations=20, seed=0)


def test_the_bytes_of_a_seed(corpus):
    """The shipped weights and the committed results were made with these files."""
    assert digest(corpus).startswith("e58e56b9ad526ac4")


def test_same_seed_same_bytes_in_another_process(corpus, tmp_path):
    code = (
        "import sys; from geli_hf.simulator.corpus import write_sample as w; w(sys.argv[1], conversations=20, seed=0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True)
    assert digest(tmp_path / "again") == digest(corpus)


def test_another_seed_is_another_corpus(corpus, tmp_path):
    other = write_sample(tmp_path, conversations=20, seed=1)
    assert {path.name for path in other.iterdir()}.isdisjoint(path.name for path in corpus.iterdir())


def test_files_and_columns_of_candor(corpus):
    homes = sorted(corpus.iterdir())
    assert len(homes) == 20
    for home in homes:
        survey = read_rows(home / "survey.csv")
        turns = read_rows(home / "transcription" / "transcript_cliffhanger.csv")
        faces = read_rows(home / "audio_video_features.csv")
        ratings = read_rows(home / "turn_ratings.csv")
        first, second = survey
        users = {first["user_id"], second["user_id"]}
        assert len(users) == 2
        assert (first["user_id"], second["user_id"]) == (second["partner_id"], first["partner_id"])
        assert {row["convo_id"] for row in survey} == {home.name}
        assert all(1 <= int(row["overall_affect"]) <= 9 for row in survey)

        assert 10 <= len(turns) <= 22
        assert {row["speaker"] for row in turns} == users
        assert all(one["speaker"] != other["speaker"] for one, other in itertools.pairwise(turns))
        assert all(float(one["stop"]) < float(other["start"]) for one, other in itertools.pairwise(turns))
        assert all(int(row["n_words"]) == len(row["utterance"].split()) for row in turns)
        assert [row["turn_id"] for row in ratings] == [row["turn_id"] for row in turns]

        for user in users:
            seconds = [row["timedelta"] for row in faces if row["user_id"] == user]
            assert seconds[0] == "0 days 00:00:01"
            assert len(seconds) == len(set(seconds)) == math.ceil(float(turns[-1]["stop"]))
        seen = [row for row in faces if row["prob_face_happiness"]]
        assert 0 < len(seen) < len(faces)
        for row in seen:
            probabilities = [float(value) for name, value in row.items() if name.startswith("prob_face_")]
            assert len(probabilities) == 8
            assert sum(probabilities) == pytest.approx(1, abs=0.005)
        assert json.loads((home / "metadata.json").read_text())["convo_id"] == home.name


def test_turn_ratings_are_values_of_the_oracle(corpus):
    for home in corpus.iterdir():
        turns = read_rows(home / "transcription" / "transcript_cliffhanger.csv")
        ratings = [float(row["rating"]) for row in read_rows(home / "turn_ratings.csv")]
        for last, rating in enumerate(ratings):
            speaker = turns[last]["speaker"]
            messages = [
                {"role": "assistant" if row["speaker"] == speaker else "user", "content": row["utterance"]}
                for row in turns[: last + 1]
            ]
            value = true_turn_value(messages)
            assert value.recognised
            assert value.value == rating


def test_a_corpus_can_be_written_again_but_not_over_another_one(tmp_path):
    write_sample(tmp_path, conversations=2, seed=0)
    before = digest(tmp_path)
    write_sample(tmp_path, conversations=2, seed=0)
    assert digest(tmp_path) == before
    with pytest.raises(FileExistsError, match="2 entries"):
        write_sample(tmp_path, conversations=2, seed=1)


@pytest.mark.parametrize(("name", "value"), [("conversations", 0), ("seed", -1)])
def test_impossible_arguments_are_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected .*{value}"):
        write_sample(tmp_path, **{name: value})
