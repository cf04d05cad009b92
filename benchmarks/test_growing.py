"""Time of the newest turn of a dialogue that grows, as it is scored after each turn."""

from itertools import count

import pytest
from reference import long_dialogue, random_backbone, with_random_head

from geli_hf import GeliRewardModel
from geli_hf.models.growing import GrowingScorer

# Backbone, options, and words of a message: with six, 100 turns fit into the context of the decoder.
CASES = {
    "MiniLM, the message before": ("minilm", {"context_messages": 1}, None),
    "MiniLM, the message before, interactions": ("minilm", {"context_messages": 1, "interactions": True}, None),
    "decoder, whole dialogue so far": ("decoder", {}, 6),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path, word_pieces, sample):
    """A model, and a dialogue of 100 turns."""
    name, options, words = CASES[request.param]
    # One head of keys and values, as most chat models have fewer of these than heads.
    folder = word_pieces if name == "minilm" else random_backbone("decoder", tmp_path, num_key_value_heads=1)
    model = with_random_head(GeliRewardModel.from_backbone(folder, **options))
    return model, long_dialogue(sample.to_list(), 100, words=words)


class Grown:
    """A dialogue whose turn `number` is said anew with every call, and scored."""

    def __init__(self, model: GeliRewardModel, messages: list[dict], number: int):
        self.score, self.before, self.last = GrowingScorer(model), messages[: 2 * number - 2], messages[-2:]
        self.numbers = count(10)  # as many tokens every time
        for length in range(2, len(self.before) + 1, 2):
            self.score(self.before[:length])

    def __call__(self):
        number = next(self.numbers)
        said = [message | {"content": f"{number} {message['content']}"} for message in self.last]
        self.messages = [*self.before, *said]
        self.rewards = self.score(self.messages)


def test_the_hundredth_turn_and_the_second(pair, case):
    hundredth, second = (Grown(*case, number) for number in (100, 2))
    assert pair(hundredth, second, rounds=15) >= 0.5


def test_the_hundredth_turn_and_the_whole_dialogue(pair, case):
    model, found = case[0], {}
    hundredth = Grown(*case, 100)
    hundredth()

    def whole():
        found["theirs"] = model.score_messages([hundredth.messages], last_turn_only=False)[0].tolist()
        found["ours"] = hundredth.rewards

    assert pair(hundredth, whole, rounds=5) >= 5
    assert found["ours"] == pytest.approx(found["theirs"], abs=1e-4)
