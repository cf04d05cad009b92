"""How long `GeliRewardModel.score_sessions` takes, against one turn at a time. Both give the same rewards."""

import pytest
import torch

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.modeling_geli import default_backbone
from geli_hf.sessions import assistant_turns


@pytest.fixture(scope="module")
def model():
    try:
        default_backbone()
    except OSError as error:
        pytest.skip(str(error))
    model = GeliRewardModel.from_backbone(context_messages=4)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.out.weight, std=0.1)  # an untrained head rewards everything with 0
    return model


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    return load_sessions("sample", conversations=8, cache_dir=folder).to_list()


def prefixes(sessions: list[dict]) -> list[list[dict]]:
    """Each turn of the assistant with the dialogue before it."""
    return [row["messages"][: turn + 1] for row in sessions for turn in assistant_turns(row["messages"])]


def test_all_turns_at_once(pair, model, sessions):
    """Against a forward pass for each turn, without a token of padding."""
    dialogues, found = prefixes(sessions), {}

    def ours():
        found["ours"] = [reward for row in model.score_sessions(sessions) for reward in row["turn_rewards"]]

    def one_at_a_time():
        found["theirs"] = [model.score_messages([dialogue]).item() for dialogue in dialogues]

    pair(ours, one_at_a_time)
    assert found["ours"] == pytest.approx(found["theirs"], abs=1e-4)


def test_no_more_padding_than_needed(pair, model, sessions):
    """Against a forward pass for each turn, padded to the length of the context as in the published scripts."""
    few = sessions[:2]
    dialogues, found = prefixes(few), {}
    padding = model.tokenizer.pad_token_id

    @torch.inference_mode()
    def padded(dialogue: list[dict]) -> float:
        ids = model.tokenize([dialogue[-5:]])["input_ids"]
        real = ids.shape[1]
        ids = torch.nn.functional.pad(ids, (0, model.config.max_length - real), value=padding)
        mask = (torch.arange(ids.shape[1]) < real).long()[None]
        states = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        [start] = (ids[0] == model.config.assistant_token_id).nonzero()[-1].tolist()
        return model.score(states[start:real].mean(0)[None, None]).item()

    def ours():
        found["ours"] = [reward for row in model.score_sessions(few) for reward in row["turn_rewards"]]

    def reference():
        found["theirs"] = [padded(dialogue) for dialogue in dialogues]

    pair(ours, reference, rounds=3)
    assert found["ours"] == pytest.approx(found["theirs"], abs=1e-4)
