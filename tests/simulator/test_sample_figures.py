"""The figures of the sample corpus lie in the bands that its constants aim at, measured from the files themselves."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from geli_hf.simulator.corpus import write_sample
from geli_hf.simulator.frames import FAMILIES
from geli_hf.simulator.grammar import normalise, parse


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _spearman(one, other) -> float:
    """Correlate two series; NaN where either is constant."""
    return spearmanr(one, other)[0] if np.ptp(one) and np.ptp(other) else np.nan


def measure(folder: Path) -> dict:
    """Correlate the listener's face, the length and the position with the truth, per session and perspective."""
    sessions, texts, faces_seen, values = [], [], [], []
    for home in folder.iterdir():
        turns = _rows(home / "transcription" / "transcript_cliffhanger.csv")
        ratings = [float(row["rating"]) for row in _rows(home / "turn_ratings.csv")]
        faces = _rows(home / "audio_video_features.csv")
        texts += [row["utterance"] for row in turns]
        values += ratings
        faces_seen += [bool(row["prob_face_neutral"]) for row in faces]
        for rater in _rows(home / "survey.csv"):
            smiles = {}  # second -> the most probable emotion, where a face is seen
            for row in faces:
                if row["user_id"] == rater["user_id"] and row["prob_face_neutral"]:
                    second = sum(
                        int(part) * 60**power for power, part in zip((2, 1, 0), row["timedelta"][7:].split(":"))
                    )
                    emotions = {name: float(value) for name, value in row.items() if name.startswith("prob_face_")}
                    smiles[second] = max(emotions, key=emotions.get)
            truth, smiled, words = [], [], []
            for row, rating in zip(turns, ratings):
                if row["speaker"] == rater["user_id"]:
                    continue
                shown = [smiles[s] for s in smiles if float(row["start"]) <= s <= float(row["stop"])]
                short = int(row["n_words"]) <= 5
                happy = Counter(shown).most_common(1)[0][0] == "prob_face_happiness" if shown else np.nan
                truth.append(rating)
                words.append(int(row["n_words"]))
                smiled.append(0.0 if short else float(happy))
            seen = np.isfinite(smiled)
            sessions.append(
                {
                    "score": int(rater["overall_affect"]),
                    "mean_truth": np.mean(truth),
                    "sd_truth": np.std(truth),
                    "face": _spearman(np.array(smiled)[seen], np.array(truth)[seen]) if seen.sum() > 2 else np.nan,
                    "happy": np.mean(np.array(smiled)[seen]),
                    "length": _spearman(words, truth),
                    "position": _spearman(range(len(truth)), truth),
                    "turns": len(truth),
                }
            )
    columns = {name: np.array([session[name] for session in sessions]) for name in sessions[0]}
    return columns | {"texts": texts, "values": np.array(values), "seen": np.mean(faces_seen)}


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> dict:
    return measure(write_sample(tmp_path_factory.mktemp("sample"), conversations=400, seed=0))


@pytest.fixture(scope="module")
def other_texts(tmp_path_factory) -> list[str]:
    folder = write_sample(tmp_path_factory.mktemp("other"), conversations=400, seed=1)
    return [row["utterance"] for path in folder.rglob("transcript_cliffhanger.csv") for row in _rows(path)]


def test_the_face_says_as_little_about_the_truth_as_the_best_signal_of_real_corpora(figures):
    assert 0.20 <= np.nanmean(figures["face"]) <= 0.28
    assert 0.15 <= np.mean(figures["happy"]) <= 0.30
    assert figures["seen"] == pytest.approx(0.92, abs=0.01)


def test_the_score_is_as_reliable_as_real_session_labels(figures):
    correlation = np.corrcoef(figures["score"], figures["mean_truth"])[0, 1]
    assert 0.60 <= correlation <= 0.72
    assert np.std(figures["score"]) == pytest.approx(1.5, abs=0.15)
    assert np.mean((figures["score"] == 1) | (figures["score"] == 9)) < 0.1


def test_neither_length_nor_position_gives_the_value_away(figures):
    assert abs(np.nanmean(figures["length"])) < 0.07
    assert abs(np.nanmean(figures["position"])) < 0.07


def test_values_vary_within_sessions_more_than_between_them(figures):
    assert np.mean(figures["turns"]) == pytest.approx(8, abs=0.3)
    assert np.mean(figures["sd_truth"]) == pytest.approx(0.47, abs=0.05)
    # Drawing about 8 turns at random alone gives .53 / sqrt(8) = .19; people differ, but not by much.
    assert 0.17 < np.std(figures["mean_truth"]) < 0.24


def test_every_act_comes_in_short_and_long_forms(figures):
    lengths = {act: [] for act in FAMILIES}
    for text in figures["texts"]:
        lengths[parse(text).act].append(len(text.split()))
    for act, counts in lengths.items():
        assert len(counts) >= 30, act
        assert np.quantile(counts, 0.05) <= 12, act
        assert np.quantile(counts, 0.95) >= 16, act


def test_a_small_vocabulary_says_a_great_many_things(figures, other_texts):
    texts = figures["texts"]
    assert len({word for text in texts + other_texts for word in normalise(text).split()}) <= 1500
    assert len(set(texts)) / len(texts) > 0.9
    known = set(texts)
    assert np.mean([text in known for text in other_texts]) < 0.12


def test_sentences_start_with_a_capital_and_end_with_a_stop(figures):
    for text in figures["texts"]:
        assert text[0].isupper()
        assert text[-1] in ".?!"
        assert "  " not in text
        assert "{" not in text
