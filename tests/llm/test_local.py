"""A chat model on this machine."""

import threading

import pytest
import torch
from asking import all_nan, signal
from tiny import backbone
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from geli_hf.llm import BackendError, CallError, LlmDecomposer, LocalModel, Prompt
from geli_hf.llm.answers import answer_schema

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ 'assistant:' }}"
SHORT = Prompt("{score} {transcript}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A chat model that has learned nothing."""
    path = tmp_path_factory.mktemp("chat")
    tokenizer = AutoTokenizer.from_pretrained(backbone("llama"))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **ids, **sizes)
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def ask(model: LocalModel, content: str = "once: 5", stop=None):
    messages = [{"role": "user", "content": content}]
    return model.ask(messages, answer_schema(range(1)), model.parameters(1), stop or threading.Event())


def test_the_answer_is_greedy(folder):
    answer = ask(LocalModel(folder, max_tokens=12))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder)
    ids = tokenizer("user: once: 5\nassistant:", return_tensors="pt").input_ids
    asked = ids.shape[1]
    with torch.no_grad():
        for _ in range(12):  # token by token, without the cache of generate()
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
            if ids[0, -1] == tokenizer.eos_token_id:
                break
    written = ids[0, asked:]
    assert answer.text == tokenizer.decode(written, skip_special_tokens=True)
    assert answer.cut == (written[-1] != tokenizer.eos_token_id)
    assert (answer.prompt_tokens, answer.answer_tokens) == (asked, len(written))


def test_invalid_answers_are_counted_as_failures(folder, sessions, tmp_path):
    decomposer = LlmDecomposer(LocalModel(folder, max_tokens=8), prompt=SHORT, attempts=2, cache_dir=tmp_path / "kept")
    out, report = decomposer.decompose(sessions)
    assert all(map(all_nan, signal(out)))
    assert (report.done, report.failures, report.calls) == (0, 3, 6)
    _, again = decomposer.decompose(sessions)
    assert (again.calls, again.cached) == (0, 6)


def test_a_question_that_does_not_fit(folder):
    with pytest.raises(CallError, match=r"too long for the model: \d+ tokens and 80 for the answer, of 512"):
        ask(LocalModel(folder), "river " * 600)


def test_an_ended_run_generates_nothing(folder):
    stop = threading.Event()
    stop.set()
    with pytest.raises(BackendError, match="the run has ended"):
        ask(LocalModel(folder), stop=stop)


def test_a_model_without_a_chat_template():
    with pytest.raises(BackendError, match="has no chat template"):
        ask(LocalModel(backbone("llama")))


def test_a_folder_with_other_weights_is_another_model(folder, tmp_path):
    (tmp_path / "weights").write_text("a")
    before = LocalModel(str(tmp_path)).identity
    assert LocalModel(str(tmp_path)).identity == before
    (tmp_path / "weights").write_text("bc")
    assert LocalModel(str(tmp_path)).identity != before
    assert LocalModel("owner/name").identity == {"model": "owner/name", "backend": "transformers"}
