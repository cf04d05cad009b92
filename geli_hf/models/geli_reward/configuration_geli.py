"""Configuration of the decomposed reward model.

The files of this folder travel with every checkpoint: of the package, they import only each other.
"""

from dataclasses import field
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

TOOLKIT_VERSION = "0.1.0"  # of the geli_hf that writes this configuration


@strict
class GeliRewardConfig(PreTrainedConfig):
    r"""
    Configuration of a [`GeliRewardModel`].

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the backbone.
        head (`str`, *optional*, defaults to `"linear"`):
            `"linear"`; `"mlp"`, the paper's two layers with a final tanh (rewards within -1..1); or `"rudder"`, an
            LSTM over the turns of the session whose predictions are differenced (arXiv 1806.07857).
        head_hidden_size (`int`, *optional*, defaults to 128):
            Width of the `mlp` and `rudder` heads.
        head_dropout (`float`, *optional*, defaults to 0.0):
            Dropout on the head's input (`linear`, `rudder`) or between its two layers (`mlp`); never after the last.
        pooling (`str`, *optional*, defaults to `"turn"`):
            Feature vector of a turn: `"turn"`, the mean of the hidden states of its tokens, or `"last"`, the hidden
            state at its end token (the paper).
        layers (`str`, *optional*, defaults to `"last"`; `from_backbone` makes it `"all"`):
            Hidden states of the `"last"` layer, or the mean over `"all"`. The last layers of a sentence encoder are
            trained to tell topics apart; lower ones also encode style.
        causal (`bool`, *optional*, defaults to `False`):
            True for a decoder, where one pass over a session yields every turn's reward.
        context_messages (`int`, *optional*):
            Number of messages before a turn that its reward depends on. `None`: as many as fit.
        interactions (`bool`, *optional*, defaults to `False`):
            Let the head read how a turn fits the messages before it, by the embeddings of messages that are encoded
            alone (mean of the last layer): see `interaction_features`. They look back to the beginning of the
            dialogue, whatever `context_messages` is.
        max_length (`int`, *optional*, defaults to 512):
            Longest input of the backbone, in tokens. Longer ones are cropped from the left by whole messages.
        user_token_id, assistant_token_id (`int`):
            Tokens that open a message of either role.
        prefix_token_ids (`list[int]`):
            Tokens that open every input of the backbone (its beginning-of-sequence token, if it has one).
        aggregation (`str`, *optional*, defaults to `"mean"`):
            `"mean"` or `"sum"` of the turn rewards predicts the session's score.
        score_mean, score_std (`float`):
            Mean and deviation of the training sessions' scores. The predicted score of a session is
            `score_mean + score_std * aggregate(turn rewards)`.
        ratings (`dict[str, list[float]]`, *optional*):
            Mean and deviation of each rating that has turn rewards of its own, beside those of the score; with the
            `linear` head, whose outputs are in the order of the names.
        fit_hidden_size (`int`, *optional*, defaults to 0):
            Width of the networks that tell turns that don't fit their dialogue, by these features; 0 for none.
        fit_weight (`float`, *optional*, defaults to 0.0):
            Loss of reward of a turn that certainly doesn't fit, in units of the standardised score. `fit_hindsight`
            puts the range of the training turns' rewards in the place of 0, so that no such turn gets more than one
            that fits.
        residual_std (`float`, *optional*):
            Deviation of a held-out session's score from its prediction, in units of the score.
        reward_quantiles (`list[float]`):
            Quantiles 0, 1, ..., 100 % of the rewards of training turns, from a sample if sessions are many; empty
            before training.
    """

    model_type = "geli_reward"
    sub_configs_defaults = {"text_config": SubConfigSpec(AutoConfig, model_type="bert")}  # noqa: RUF012

    text_config: dict | PreTrainedConfig | None = None
    head: Literal["linear", "mlp", "rudder"] = "linear"
    head_hidden_size: int = 128
    head_dropout: float = 0.0
    pooling: Literal["turn", "last"] = "turn"
    layers: Literal["last", "all"] = "last"
    causal: bool = False
    context_messages: int | None = None
    interactions: bool = False
    max_length: int = 512
    user_token_id: int | None = None
    assistant_token_id: int | None = None
    prefix_token_ids: list[int] | tuple[int, ...] = ()
    aggregation: Literal["mean", "sum"] = "mean"
    score_mean: float = 0.0
    score_std: float = 1.0
    ratings: dict[str, list[float] | tuple[float, ...]] = field(default_factory=dict)
    fit_hidden_size: int = 0
    fit_weight: float = 0.0
    residual_std: float | None = None
    reward_quantiles: list[float] | tuple[float, ...] = ()
    initializer_range: float = 0.02

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Read a configuration, as every `PreTrainedConfig` does.

        Raises:
            ValueError: it was written by a newer geli_hf, whose settings this version does not know.
        """
        written = str(config_dict.get("geli_hf_version") or TOOLKIT_VERSION)
        newest = [tuple(int(part) for part in version.split(".")[:2]) for version in (written, TOOLKIT_VERSION)]
        if newest[0] > newest[1]:
            raise ValueError(
                f"this {cls.model_type} was written by geli-hf {written}, which is newer than {TOOLKIT_VERSION} here. "
                "Upgrade geli-hf; or, where it isn't imported, load with trust_remote_code=True the code that lies "
                "beside the weights"
            )
        return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs):
        # One logit, and no sigmoid over it in the text-classification pipeline.
        self.problem_type = "regression"
        if self.id2label is None:
            self.id2label, self.label2id = {0: "reward"}, {"reward": 0}
        super().__post_init__(**kwargs)
        self.geli_hf_version = TOOLKIT_VERSION
        if not self.score_std > 0:
            raise ValueError(f"score_std: expected a positive deviation, found {self.score_std}")
        if self.context_messages is not None and self.context_messages < 0:
            raise ValueError(f"context_messages: expected 0 or more (or None for all), found {self.context_messages}")
        self.ratings = dict(sorted(self.ratings.items()))  # as a file of a configuration has them
        for name, scale in self.ratings.items():
            if len(scale) != 2 or not scale[1] > 0:
                raise ValueError(f"ratings.{name}: expected a mean and a positive deviation, found {list(scale)}")
        if self.fit_hidden_size < 0:
            raise ValueError(f"fit_hidden_size: expected 0 or more, found {self.fit_hidden_size}")
        if self.ratings and self.head != "linear":
            raise ValueError(f"ratings: only the linear head has rewards of several ratings, found {self.head!r}")

    @property
    def feature_size(self) -> int:
        """Number of features of a turn, those of its interactions among them if anything reads these."""
        size = self.get_text_config().hidden_size
        return 4 * size + 6 if self.interactions or self.fit_hidden_size else size

    @property
    def head_size(self) -> int:
        """Number of features that the head reads, which are the first."""
        return self.feature_size if self.interactions else self.get_text_config().hidden_size


__all__ = ["GeliRewardConfig"]
