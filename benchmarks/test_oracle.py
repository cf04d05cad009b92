"""Time of the sample's oracle to value replies: policies are judged by thousands of them."""

import numpy as np

from geli_hf.simulator.corpus import true_turn_value
from geli_hf.simulator.people import converse, draw_traits

REPLIES = 2000


def test_two_thousand_replies(benchmark):
    dialogues = []
    for index in range(140):
        rng = np.random.default_rng([12, index])
        texts = [message.text for message in converse([draw_traits(rng), draw_traits(rng)], rng)]
        for last in range(len(texts)):
            roles = ["assistant" if (last - place) % 2 == 0 else "user" for place in range(last + 1)]
            dialogues.append([{"role": role, "content": text} for role, text in zip(roles, texts)])
    assert len(dialogues) >= REPLIES

    benchmark.pedantic(lambda: [true_turn_value(messages) for messages in dialogues[:REPLIES]], rounds=3)
    assert benchmark.stats.stats.median < 1
