"""Rewards of dialogues that grow, such as chats: a new turn costs one turn, and not all turns before it again."""

import re
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from inspect import signature
from threading import Lock

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..sessions import Message
from .geli_reward.modeling_geli import ASSISTANT_TOKEN, USER_TOKEN, GeliRewardModel, GeliRewardOutput, Window
from .geli_reward.text_geli import plain_messages

ROLES = re.compile(f"(?={re.escape(USER_TOKEN)}|{re.escape(ASSISTANT_TOKEN)})")


class GrowingScorer:
    """Score a dialogue after each of its turns, edits and undos, and read with the backbone only what is new.

    Rewards equal those of the model but for rounding. Of an encoder the features of each window are kept, of a decoder
    the keys and values of a dialogue and the features of its turns. A dialogue that is longer than the context of a
    decoder with `context_messages=None` is read anew each time, since all its windows move.

    What is kept depends on the model's weights, device and precision: make a new scorer after a change. It is kept
    in memory alone, the words as text and as token ids, until newer ones take its place. Threads that share a scorer
    score one after the other.

    Args:
        model: the reward model, in eval mode.
        sessions: most dialogues whose keys and values are kept; only a decoder has them, and those of a large one take
            much memory.
        windows: most features that are kept, a vector for each turn (and, with `interactions`, for each message);
            also the most messages whose token ids are.

    Example:

    ```python
    score = GrowingScorer(model)
    rewards = score(messages)  # of all turns of the assistant
    rewards = score([*messages, question, answer])  # reads these two
    ```
    """

    def __init__(self, model: GeliRewardModel, *, sessions: int = 64, windows: int = 16_384):
        model.check_tokenizer()
        self.model, self.sessions, self.windows = model, sessions, windows
        self._features: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self._pasts: list[tuple[list[int], DynamicCache]] = []  # the one that was used last is the last
        options = {"add_special_tokens": False, "verbose": False}
        self._tokens = lru_cache(windows)(lambda text: model.tokenizer(text, **options)["input_ids"])
        self._continues = model.config.causal and model.config.context_messages is None and _can_be_cut(model)
        self._lock = Lock()

    def __call__(self, messages: list[Message]) -> list[float]:
        """Reward every assistant turn of a dialogue, as `model.score_messages(..., last_turn_only=False)` does.

        Args:
            messages: with `role` and `content`, see [`GeliRewardModel.tokenize`].

        Returns:
            (turns,), in units of the standardised score.

        Raises:
            ValueError: a message has another form, none is the assistant's, or the model is in training mode.
        """
        return self.output(messages).turn_rewards[0].tolist()

    def predict_score(self, messages: list[Message]) -> float:
        """Predict the score of a dialogue, in the units of the ratings. Arguments and errors are as of a call."""
        output = self.output(messages)
        return self.model.predict_score(output.turn_rewards, output.turn_mask, output.losses).item()

    @torch.inference_mode()
    def output(self, messages: list[Message]) -> GeliRewardOutput:
        """Return the model's output for one dialogue.

        Args:
            messages: with `role` and `content`, see [`GeliRewardModel.tokenize`].

        Raises:
            ValueError: a message has another form, none is the assistant's, or the model is in training mode.
        """
        if self.model.training:
            raise ValueError("model: expected eval mode, found training mode; make a new scorer after model.eval()")
        with self._lock:
            ids = torch.tensor([self._tokenize(messages)], device=self.model.device)
            encoded = self.model.encode_turns(ids, read=self.read)
            return self.model(turn_features=encoded.features, turn_mask=encoded.mask)

    def _tokenize(self, messages: list[Message]) -> list[int]:
        """Tokenize message by message, which gives the same tokens, since a special token opens each."""
        dialogues = [plain_messages(messages, "dialogue")]
        [text] = self.model.tokenizer.apply_chat_template(dialogues, tokenize=False)
        return [token for part in ROLES.split(text) if part for token in self._tokens(part)]

    def read(self, windows: list[Window], places: int, layers: str, device: torch.device) -> torch.Tensor:
        """Look the spans of the windows up, and read the windows of those that are not there.

        For `model.encode_turns(..., read=scorer.read)`; see `model.read_windows`. Threads must not share it.
        """
        keys = {place: key for window in windows for place, key in self._keys(window, layers)}
        unread = [
            replace(window, spans=[span for span in window.spans if keys[span[0]] not in self._features])
            for window in windows
        ]
        unread = [window for window in unread if window.spans]
        if unread:
            # One window is all of a decoder's dialogue, unless that does not fit.
            read = self._read_on if self._continues and len(windows) == 1 else self.model.read_windows
            features = read(unread, places, layers, device)
            self._features |= {keys[place]: features[place].clone() for window in unread for place, *_ in window.spans}
        for key in keys.values():
            self._features.move_to_end(key)
        kept = torch.stack([self._features[key] for key in keys.values()])
        features = kept.new_zeros(places, kept.shape[-1])
        features[list(keys)] = kept
        while len(self._features) > self.windows:
            self._features.popitem(last=False)
        return features

    def _keys(self, window: Window, layers: str) -> list[tuple]:
        """Name the place of each span, and all that its features depend on: in a decoder nothing that comes after."""
        ids, digest, past, keys = array("q", window.ids), blake2b(layers.encode(), digest_size=16), 0, []
        for place, start, stop in sorted(window.spans, key=lambda span: span[2]):
            upto = stop if self.model.config.causal else len(ids)
            digest.update(ids[past:upto])
            keys.append((place, (digest.digest(), start, stop)))
            past = upto
        return keys

    def _read_on(self, windows: list[Window], places: int, layers: str, device: torch.device) -> torch.Tensor:
        """Read a window from where it leaves the dialogue that it has most in common with."""
        [window] = windows
        common = [common_length(window.ids, ids) for ids, _ in self._pasts]
        longest = max(range(len(common)), key=lambda index: common[index], default=None)
        # Where less than half would be left of the other dialogue, it may be another one with the same beginning.
        if longest is None or 2 * common[longest] < len(self._pasts[longest][0]):
            begin, past = 0, DynamicCache()
        else:
            ids, past = self._pasts.pop(longest)
            begin = min(common[longest], *(start for _, start, _ in window.spans))
            past.crop(begin - len(ids))
        hidden = self.model.hidden_states([window.ids[begin:]], layers, device, past)[0]
        self._pasts.append((window.ids, past))
        del self._pasts[: max(0, len(self._pasts) - self.sessions)]
        features = hidden.new_zeros(places, hidden.shape[-1], dtype=torch.float32)
        for place, start, stop in window.spans:
            features[place] = hidden[start - begin : stop - begin].float().mean(0)
        return features


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of tokens before the first one that differs."""
    return next((index for index, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))


def _can_be_cut(model: GeliRewardModel) -> bool:
    """Tell whether a decoder's memory is keys and values alone: a recurrent state can't go back."""
    if "past_key_values" not in signature(type(model.model).forward).parameters:
        return False
    layers = DynamicCache(config=model.config.get_text_config()).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
