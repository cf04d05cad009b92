"""The sentiment of the next turn by a classifier of one's own: the values of its labels, and errors."""

import math
import pickle
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import BACKBONES, backbone, sentence, session, talk
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from geli_hf import add_signal, load_sessions
from geli_hf.affect.sentiment import NextTurnSentiment

SENTIMENTS = ["NEG", "neutral", "Positive"]
STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]


def classifier(tmp_path, labels, *, name="bert", limit=None, **config):
    """Folder of a random classifier that is sure of what it says."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(
        backbone(name), num_labels=len(labels), id2label=dict(enumerate(labels)), **config
    )
    torch.nn.init.normal_(model.get_submodule("classifier" if name == "bert" else "classifier.out_proj").weight)
    tokenizer = AutoTokenizer.from_pretrained(backbone(name))
    if limit:
        tokenizer.model_max_length = limit
    model.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    return str(tmp_path / "classifier")


def by_hand(folder, messages, values, *, probabilities=lambda logits: logits.softmax(-1)):
    """One text at a time, without the pipeline."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sentiment = []
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            answered = turn + 1 < len(messages)
            tokens = tokenizer(messages[turn + 1]["content"] if answered else "", return_tensors="pt")
            with torch.no_grad():
                shares = probabilities(model(**tokens).logits[0]).double()
            sentiment.append(float(shares @ torch.tensor(values).double() / shares.sum()) if answered else math.nan)
    return sentiment


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (SENTIMENTS, [-1.0, 0.0, 1.0]),
        (STARS, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (["joy", "anger", "surprise", "Sadness"], [1.0, -1.0, 0.0, -1.0]),
    ],
)
def test_labels_that_are_known_have_their_values(tmp_path, labels, values):
    folder, messages = classifier(tmp_path, labels), talk(8)
    sentiment = NextTurnSentiment(folder)(messages)
    np.testing.assert_allclose(sentiment, by_hand(folder, messages, values), atol=1e-5)
    assert len(sentiment) == 4
    assert math.isnan(sentiment[-1])
    assert np.ptp(sentiment[:-1]) > 1e-4  # the tiny tokenizer is another in each process
    assert not np.isnan(NextTurnSentiment(folder)(talk(7))).any()  # the user has the last word


def test_values_of_your_own_go_before(tmp_path):
    folder, messages = classifier(tmp_path, SENTIMENTS), talk(8)
    values = {"NEG": 0.25, "neutral": -0.5, "Positive": 1}
    sentiment = NextTurnSentiment(folder, values=values)(messages)
    np.testing.assert_allclose(sentiment, by_hand(folder, messages, list(values.values())), atol=1e-5)


def test_several_labels_at_once(tmp_path):
    folder = classifier(tmp_path, ["joy", "anger", "confusion"], problem_type="multi_label_classification")
    expected = by_hand(folder, talk(8), [1.0, -1.0, 0.0], probabilities=torch.sigmoid)
    np.testing.assert_allclose(NextTurnSentiment(folder)(talk(8)), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_long_texts_are_cut_even_where_the_tokenizer_knows_no_limit(tmp_path, name):
    folder = classifier(tmp_path, SENTIMENTS, name=name, limit=10**30)
    [*_, last] = talk(2)
    long = sentence(random.Random(0), 10 * BACKBONES[name][3]["max_position_embeddings"])
    assert not np.isnan(NextTurnSentiment(folder)([last, {"role": "user", "content": long}])).any()


@pytest.mark.parametrize(
    ("labels", "values", "named"),
    [
        (["LABEL_0", "LABEL_1"], None, "LABEL_0"),
        (["joy", "toxic"], None, "toxic"),
        (SENTIMENTS, {"NEG": -1, "Positive": 1}, "neutral"),
        (SENTIMENTS, {"NEG": -2, "neutral": 0, "Positive": 1}, "NEG"),
        (["score"], None, "score"),
    ],
)
def test_labels_without_a_value_are_named(tmp_path, labels, values, named):
    folder = classifier(tmp_path, labels)
    with pytest.raises(ValueError, match=f"'{named}'"):
        NextTurnSentiment(folder, values=values)


def test_it_travels_without_its_weights(tmp_path):
    folder, messages = classifier(tmp_path, SENTIMENTS), talk(8)
    sentiment = NextTurnSentiment(folder, values={"NEG": -0.5, "neutral": 0, "Positive": 1})
    packed = pickle.dumps(sentiment)
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed)(messages), sentiment(messages))


def test_the_fingerprint_of_a_signal_is_that_of_the_model(tmp_path):
    sessions = Dataset.from_list([session(8), session(5)])
    signals = [add_signal(sessions, "mood", NextTurnSentiment(classifier(tmp_path, SENTIMENTS)))]
    signals.append(add_signal(sessions, "mood", NextTurnSentiment(str(tmp_path / "classifier"))))
    signals.append(add_signal(sessions, "mood", NextTurnSentiment(classifier(tmp_path, STARS))))
    first, again, other = [each._fingerprint for each in signals]
    assert first == again != other
    assert [len(row["mood"]) for row in signals[0]["feedback"]] == [4, 2]


def test_readers_take_a_model_by_name(tmp_path):
    folder = classifier(tmp_path, SENTIMENTS)
    lines = [("SYSTEM", "the dog", "", ""), ("USER", "lovely old song", "", "3,3"), ("USER", "OVERALL", "", "4")]
    (tmp_path / "MWOZ.txt").write_text("".join("\t".join(line) + "\n" for line in lines))
    [row] = load_sessions("uss", data_dir=tmp_path, cache_dir=tmp_path / "cache", sentiment=folder)
    np.testing.assert_allclose(row["feedback"]["sentiment"], by_hand(folder, row["messages"], [-1, 0, 1]), atol=1e-5)
