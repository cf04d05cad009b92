"""Time of scoring against other ways to the same rewards; `reference.py` holds the published way."""

import pytest
from reference import long_dialogue, random_backbone, reference_reward, with_random_head

from geli_hf import GeliRewardModel
from geli_hf.sessions import assistant_turns


@pytest.fixture(scope="module")
def backbones(tmp_path_factory, word_pieces):
    folder = tmp_path_factory.mktemp("backbones")
    return {"minilm": word_pieces} | {name: random_backbone(name, folder) for name in ("decoder", "bart")}


def prefixes(messages: list[dict], every: int = 1) -> list[list[dict]]:
    """Turns of the assistant, each with the dialogue before it."""
    return [messages[: turn + 1] for turn in assistant_turns(messages)[every - 1 :: every]]


def rewards_of(model: GeliRewardModel, sessions: list[dict]) -> list[float]:
    return [reward for row in model.score_sessions(sessions) for reward in row["turn_rewards"]]


@pytest.mark.parametrize("name", ["minilm", "decoder"])
def test_all_turns_at_once(pair, backbones, sample, name):
    """Against a forward pass for each turn, without a token of padding."""
    model = with_random_head(GeliRewardModel.from_backbone(backbones[name], context_messages=4))
    sessions, found = sample.to_list(), {}
    dialogues = [dialogue for row in sessions for dialogue in prefixes(row["messages"])]

    def ours():
        found["ours"] = rewards_of(model, sessions)

    def one_at_a_time():
        found["theirs"] = [model.score_messages([dialogue]).item() for dialogue in dialogues]

    assert pair(ours, one_at_a_time) > 0.95  # no loss; with a CPU core there is little to gain
    assert found["ours"] == pytest.approx(found["theirs"], abs=1e-5)


@pytest.mark.parametrize(("turns", "every"), [(40, 10), (160, 40)])
def test_decoder(pair, backbones, sample, turns, every):
    """The whole dialogue so far in shared causal passes, against the published way.

    The reference runs every tenth or fortieth turn, all of which cost it the same. Its contexts are ours where no
    more than 20 utterances came before; where more did, ours sees more, and is held to re-encoding all that it saw.
    """
    model = with_random_head(GeliRewardModel.from_backbone(backbones["decoder"]))
    messages, found = long_dialogue(sample.to_list(), turns), {}

    def ours():
        found["ours"] = rewards_of(model, [{"messages": messages}])

    def reference():
        found["theirs"] = [reference_reward(model, dialogue) for dialogue in prefixes(messages, every)]

    ratio = pair(ours, reference, rounds=3, scale=every)
    assert len(found["ours"]) == turns
    same = [reference_reward(model, dialogue) for dialogue in prefixes(messages[:21])]
    assert found["ours"][:10] == pytest.approx(same, abs=1e-5)
    if turns == 40:  # which fit
        alone = model.score_messages(prefixes(messages, every)).tolist()
        assert found["ours"][every - 1 :: every] == pytest.approx(alone, abs=1e-5)
    assert ratio >= 20


CASES = {
    "decoder, 20 utterances": ("decoder", None, 1),
    "BART, 20 utterances of 8 words": ("bart", 8, 4),
    "BART, 20 utterances": ("bart", None, 1),
    "MiniLM, 20 utterances": ("minilm", None, 1),
}


@pytest.mark.parametrize("turns", [40, 160])
@pytest.mark.parametrize("case", CASES)
def test_the_same_contexts(pair, backbones, sample, case, turns):
    """Four turns, evenly spread over the session, with the 20 utterances before each, against the published way."""
    name, words, least = CASES[case]
    model = with_random_head(GeliRewardModel.from_backbone(backbones[name], context_messages=20))
    dialogues = prefixes(long_dialogue(sample.to_list(), turns, words=words))[turns // 8 :: turns // 4]
    found = {}

    def ours():
        found["ours"] = model.score_messages(dialogues).tolist()

    def reference():
        found["theirs"] = [reference_reward(model, dialogue) for dialogue in dialogues]

    ratio = pair(ours, reference, rounds=2)
    assert found["ours"] == pytest.approx(found["theirs"], abs=1e-5)
    assert ratio >= least
