"""Sessions of a policy with a partner: which tokens are whose, and where a session ends."""

import pytest
import torch
from transformers import GenerationConfig

from geli_hf.alignment import OPENING, SessionRollouts, load_policy
from geli_hf.alignment.partners import Answer, Partner
from geli_hf.llm.backend import BackendError

PROMPTS = [
    [{"role": "user", "content": "Okay."}],
    [{"role": "user", "content": OPENING}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What do you cook?"},
        {"role": "assistant", "content": "I never know."},
        {"role": "user", "content": "Mine too."},
    ],
]
PLAIN = (
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{- 'User: ' + message['content'] + '\\n' -}}"
    "{%- else -%}{{- 'Assistant: ' + message['content'] + eos_token + '\\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)
GREEDY = GenerationConfig(do_sample=False)


class Repeats(Partner):
    """Answers with a count of the messages; to a session of a seed in `failing` or `leaving` only twice."""

    def __init__(self, failing=(), leaving=()):
        self.failing, self.leaving, self.batches = failing, leaving, []

    def answer(self, dialogues, seeds):
        self.batches.append(list(seeds))
        answers = []
        for dialogue, seed in zip(dialogues, seeds):
            assert dialogue[-1]["role"] == "assistant"
            tired = len(self.batches) == 3
            answers.append(
                Answer("", broken="gone" if seed in self.failing else "")
                if tired and seed in (*self.failing, *self.leaving)
                else Answer(f"That was {len(dialogue)}.")
            )
        return answers

    def observe(self, dialogue, seed):
        return {"words": [float(len(m["content"].split())) for m in dialogue if m["role"] == "assistant"]}


@pytest.fixture(scope="module")
def policy(policy_folder):
    return load_policy(policy_folder)


def play(policy, partner, prompts=PROMPTS, *, turns=4, max_new_tokens=6, seeds=None, **kwargs):
    rollouts = SessionRollouts(partner, turns=turns, max_new_tokens=max_new_tokens)
    seeds = list(range(len(prompts))) if seeds is None else seeds
    return rollouts.play(*policy, prompts, seeds, generation_config=GREEDY, **kwargs)


def says(monkeypatch, policy, *texts):
    """Let the policy say these texts, one per turn, in all sessions."""
    model, tokenizer = policy
    said = iter(texts)

    def generate(input_ids, **kwargs):
        words = tokenizer(next(said))["input_ids"]
        return torch.cat([input_ids, torch.tensor([words] * len(input_ids))], 1)

    monkeypatch.setattr(model, "generate", generate)


def test_the_tokens_are_those_of_the_chat_template(policy, monkeypatch):
    tokenizer = policy[1]
    says(monkeypatch, policy, "I never know.<|end|>", "Mine too.<|end|>", "Okay.<|end|>")
    for prompt, rollout in zip(PROMPTS, play(policy, Repeats(), turns=3)):
        spoken = rollout.messages[-5:]
        assert [m["content"] for m in spoken[::2]] == ["I never know.", "Mine too.", "Okay."] == rollout.replies
        assert [m["role"] for m in spoken] == ["assistant", "user"] * 2 + ["assistant"]
        whole = tokenizer.apply_chat_template([*prompt, *spoken], return_dict=True)["input_ids"]
        assert rollout.prompt_ids + rollout.completion_ids == whole
        own = [t for t, turn in zip(rollout.completion_ids, rollout.token_turns) if turn >= 0]
        assert tokenizer.decode(own) == "I never know.<|end|>Mine too.<|end|>Okay.<|end|>"
        second = [t for t, turn in zip(rollout.completion_ids, rollout.token_turns) if turn == 1]
        assert tokenizer.decode(second) == "Mine too.<|end|>"


def test_the_partner_sees_neither_system_message_nor_opening(policy):
    partner = Repeats()
    rollouts = play(policy, partner, turns=2)
    assert [len(rollout.messages) for rollout in rollouts] == [4, 3, 6]
    assert rollouts[1].messages[0]["role"] == "assistant"
    assert rollouts[2].messages[0] == PROMPTS[2][1]
    assert [m["content"] for m in rollouts[0].messages if m["role"] == "user"] == ["Okay.", "That was 2."]


def test_batch_changes_no_session(policy):
    together = play(policy, Repeats())
    for prompt, seed, rollout in zip(PROMPTS, range(3), together):
        [alone] = play(policy, Repeats(), [prompt], seeds=[seed])
        assert alone == rollout


def test_a_partner_who_leaves_ends_the_session_and_one_who_fails_breaks_it(policy):
    partner = Repeats(failing=[2], leaving=[1])
    stays, leaves, fails = play(policy, partner)
    assert partner.batches == [[0, 1, 2]] * 3
    assert [stays.turns, leaves.turns, fails.turns] == [4, 3, 3]
    assert [stays.broken, leaves.broken, fails.broken] == ["", "", "gone"]
    assert all(rollout.messages[-1]["role"] == "assistant" for rollout in (stays, leaves, fails))
    assert all(max(rollout.token_turns) == rollout.turns - 1 for rollout in (stays, leaves, fails))
    assert len(leaves.observed["words"]) == 3
    assert fails.observed == {}


def test_observed_signals_cover_the_policys_turns_only(policy):
    rollout = play(policy, Repeats(), turns=2)[2]
    assert rollout.observed["words"] == [float(len(reply.split())) for reply in rollout.replies]
    assert len(rollout.replies) == 2


def test_a_partner_that_fails_in_all_sessions_ends_the_run(policy):
    class Dead(Partner):
        def answer(self, dialogues, seeds):
            return [Answer("", broken="nobody answers at http://localhost")] * len(dialogues)

    with pytest.raises(BackendError, match="nobody answers at http://localhost"):
        play(policy, Dead())


def test_a_reply_that_speaks_for_the_user_is_cut_for_everybody(policy, monkeypatch):
    says(monkeypatch, policy, "Okay.<|user|>You are wonderful!<|end|>", "User: Hello?<|end|>")
    rollout = play(policy, Repeats(), PROMPTS[:1], turns=2)[0]
    assert rollout.replies == ["Okay.", ""]
    assert rollout.cut == 2
    text = policy[1].decode(rollout.completion_ids)
    assert text == "Okay.<|user|><|end|><|user|>That was 2.<|end|><|assistant|>User:"
    assert [message["content"] for message in rollout.messages[1:]] == ["Okay.", "That was 2.", ""]
    # The marker stays in the loss, with its turn's advantage.
    own = [[t for t, turn in zip(rollout.completion_ids, rollout.token_turns) if turn == own] for own in (0, 1)]
    assert [policy[1].decode(ids) for ids in own] == ["Okay.<|user|>", "User:"]


def test_an_empty_reply_is_a_turn(policy, monkeypatch):
    says(monkeypatch, policy, "<|end|>", "<|end|>")
    rollout = play(policy, Repeats(), PROMPTS[:1], turns=2)[0]
    assert rollout.replies == ["", ""]
    assert [turn for turn in rollout.token_turns if turn >= 0] == [0, 1]


def test_a_reply_without_an_end_is_ended_by_a_token_that_is_not_its_own(policy, monkeypatch):
    says(monkeypatch, policy, "Okay.", "Okay.")
    rollout = play(policy, Repeats(), PROMPTS[:1], turns=2)[0]
    text = policy[1].decode(rollout.completion_ids)
    assert text == "Okay.<|end|><|user|>That was 2.<|end|><|assistant|>Okay."
    own = [t for t, turn in zip(rollout.completion_ids, rollout.token_turns) if turn >= 0]
    assert policy[1].decode(own) == "Okay.Okay."


def test_a_session_ends_where_no_turn_fits_any_more(policy):
    whole = len(play(policy, Repeats(), PROMPTS[:1], turns=9)[0].completion_ids)
    for room in (6, 20, 40, 60, whole + 6):
        rollout = play(policy, Repeats(), PROMPTS[:1], turns=9, max_completion_length=room)[0]
        assert len(rollout.completion_ids) <= room
        assert rollout.messages[-1]["role"] == "assistant"
        assert (rollout.turns == 9) == (room > whole)
        assert not rollout.broken


def test_no_room_for_a_reply_is_an_error(policy):
    with pytest.raises(ValueError, match="max_completion_length"):
        play(policy, Repeats(), max_completion_length=5)


def test_the_policys_mode_is_left_as_it_was(policy):
    model = policy[0]
    model.train()
    play(policy, Repeats(), turns=1)
    assert model.training
    model.eval()
    play(policy, Repeats(), turns=1)
    assert not model.training


class TestTemplates:
    def test_template_text_after_a_reply_is_masked(self, policy, policy_folder, monkeypatch):
        model, _ = policy
        tokenizer = load_policy(policy_folder)[1]
        tokenizer.chat_template = PLAIN
        says(monkeypatch, (model, tokenizer), " Mine too.<|end|>", " Okay.<|end|>")
        rollout = play((model, tokenizer), Repeats(), PROMPTS[:1], turns=2)[0]
        text = tokenizer.decode(rollout.prompt_ids + rollout.completion_ids)
        assert text == "User: Okay.\nAssistant: Mine too.<|end|>\nUser: That was 2.\nAssistant: Okay.<|end|>"

    @pytest.mark.parametrize(
        "template",
        [
            "{%- for m in messages -%}{{- m['content'] -}}{%- endfor -%}",  # without an end token
            "{{- messages | length -}}{%- for m in messages -%}{{- m['content'] + eos_token -}}{%- endfor -%}",
        ],
    )
    def test_a_template_that_does_not_append_is_refused(self, policy, policy_folder, template):
        tokenizer = load_policy(policy_folder)[1]
        tokenizer.chat_template = template
        with pytest.raises(ValueError, match="chat template"):
            play((policy[0], tokenizer), Repeats(), PROMPTS[:1])
