"""Equalities that the benchmarks claim, on tiny backbones: a ratio of times says nothing where results differ."""

import numpy as np
import pytest
import tiny
from datasets import Dataset
from scripts import EXAMPLES, as_module
from tiny import reward_model, session

from geli_hf.models.features import cached_turn_features
from geli_hf.sessions import assistant_turns

BENCHMARKS = EXAMPLES.parent / "benchmarks"
reference = as_module(BENCHMARKS / "reference.py")


def prefixes(messages: list[dict]) -> list[list[dict]]:
    return [messages[: turn + 1] for turn in assistant_turns(messages)]


@pytest.mark.parametrize("pooling", ["last", "turn"])
@pytest.mark.parametrize("layers", ["last", "all"])
@pytest.mark.parametrize("name", [*tiny.ENCODERS, *tiny.DECODERS])
def test_the_published_way_gives_our_rewards(name, layers, pooling):
    model = reward_model(name, layers=layers, pooling=pooling, context_messages=reference.CONTEXT)
    # Llama's context has room for more than the 20 utterances that a turn may see.
    row = session(30, words=2) if name == "llama" else session(4, words=2)
    [ours] = model.score_sessions([row])
    assert not ours["cropped"]
    theirs = [reference.reference_reward(model, prefix) for prefix in prefixes(row["messages"])]
    np.testing.assert_allclose(ours["turn_rewards"], theirs, atol=1e-5)
    assert np.std(theirs) > 1e-3


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_cached_features_are_those_of_the_published_way(name, tmp_path):
    model = reward_model(name, context_messages=reference.CONTEXT)
    row = session(4, words=2)
    [ours] = cached_turn_features(model, Dataset.from_list([row]), cache_dir=tmp_path)
    theirs = [reference.reference_features(model, prefix) for prefix in prefixes(row["messages"])]
    np.testing.assert_allclose(ours, np.stack(theirs), atol=1e-5)


def test_a_video_is_read_as_by_a_loop_over_its_frames(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = as_module(BENCHMARKS / "test_video.py")
    pictures = map(benchmark.scene, benchmark.walk(50, 110.0))
    clip = benchmark.write(tmp_path / "clip.mp4", pictures, options={"preset": "medium", "crf": "23"})
    classifier, detector = benchmark.ImageAffect(), benchmark.CascadeDetector()
    happy = benchmark.VideoAffect(classifier, detector, fps=5)(clip)["prob_face_happiness"]
    theirs = [row[4] for row in benchmark.frame_by_frame(clip, 5, detector, classifier)]
    assert len(happy) == 10
    assert happy.notna().all()
    assert happy.mean() == pytest.approx(np.mean(theirs), abs=0.05)


def test_peers_that_can_not_run_say_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    pictures = as_module(EXAMPLES.parent / "tests" / "examples" / "test_train_affect.py").pictures
    pictures(0, 3).to_parquet(tmp_path / "test.parquet")
    as_module(BENCHMARKS / "facial_peers.py").main(
        [str(tmp_path / "test.parquet"), "--hdf5", str(tmp_path / "no.hdf5")]
    )
    rows = {line.split(" | ")[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert "did not run" not in rows["| ours"]
    assert all("did not run" in rows[f"| {name}"] for name in ("fer", "DeepFace", "py-feat"))
    assert "no.hdf5" in rows["| fer"]
    assert str(tmp_path) in rows["| DeepFace"]
    assert "happiness (6)" in rows["| "]
