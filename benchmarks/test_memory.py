"""Peak memory and time of `geli score`, in fresh processes, against the number and the length of sessions."""

import pytest
from fresh_process import score_in_fresh_process, write_sessions
from reference import long_dialogue, random_backbone

from geli_hf import GeliRewardModel

# MiB more for twenty times as much. A session is tokenized as a whole, so its own text and tokens do take memory.
MOST = {"sessions": 16, "turns": 100}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, word_pieces):
    folder = tmp_path_factory.mktemp("checkpoint")
    GeliRewardModel.from_backbone(random_backbone("nothing", folder)).save_pretrained(folder / "model")
    return str(folder / "model")


@pytest.mark.parametrize("what", ["sessions", "turns"])
def test_twenty_times_as_much(benchmark, checkpoint, sample, tmp_path, what):
    """200 and 4,000 sessions of three turns; one session of 150 and of 3,000 turns."""
    sessions = sample.to_list()
    if what == "sessions":
        dialogues = [long_dialogue(sessions[row % 16 :], 3) for row in range(200)]
        files = [write_sessions(tmp_path / f"{copies}.jsonl", dialogues, copies) for copies in (1, 20)]
    else:
        files = [
            write_sessions(tmp_path / f"{turns}.jsonl", [long_dialogue(sessions, turns)]) for turns in (150, 3000)
        ]
    found = []
    benchmark.pedantic(lambda: found.extend(score_in_fresh_process(checkpoint, file) for file in files), rounds=1)
    (few_seconds, few), (many_seconds, many) = found
    benchmark.extra_info |= {"seconds": [few_seconds, many_seconds], "peak_mib": [few, many]}
    print(
        f"\n{what}: {few_seconds:.2f} s and {few:.0f} MiB; twenty times as many: {many_seconds:.2f} s, {many:.0f} MiB"
    )
    assert many - few <= MOST[what]
    assert many_seconds < 1.5 * 20 * few_seconds
