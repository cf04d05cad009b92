"""The pipeline `turn-rewards`: chat messages in, a reward for every turn of the assistant out.

This file travels with every checkpoint, beside `modeling_geli.py`. Of the package it imports `text_geli.py`.
"""

from transformers import Pipeline

from .text_geli import plain_messages


class TurnRewardsPipeline(Pipeline):
    """
    Pipeline of `pipeline("turn-rewards", model=..., trust_remote_code=True)`. It takes a dialogue, a list of messages
    with `role` and `content`, or a list of dialogues.

    Returns, for each dialogue, one dict per turn of the assistant: `index` (of the message in the dialogue), `reward`
    (in units of the standardised score), and `percentile` (share of the training turns with a lower one, from 0 to 1;
    NaN before training).
    """

    # The model has its own tokenizer, which writes the roles.
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def _sanitize_parameters(self, **kwargs):
        if kwargs:
            raise TypeError(f"turn-rewards: unknown options {', '.join(sorted(kwargs))}")
        return {}, {}, {}

    def __call__(self, dialogues, **kwargs):
        if not isinstance(dialogues, (list, tuple)) or not dialogues:
            raise ValueError(f"turn-rewards: expected a dialogue or a list of them, found {dialogues!r:.80}")
        single = isinstance(dialogues[0], dict)
        # Wrapped, since a bare list of messages would be taken for a batch.
        rewarded = super().__call__(
            [{"messages": messages} for messages in ([dialogues] if single else dialogues)], **kwargs
        )
        return rewarded[0] if single else rewarded

    def preprocess(self, inputs):
        messages = plain_messages(inputs["messages"])
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        return {"turns": turns, "messages": messages}

    def _forward(self, inputs):
        if not inputs["turns"]:  # nothing to reward
            return {"turns": [], "rewards": []}
        encoded = self.model.tokenize([inputs["messages"]])
        return {"turns": inputs["turns"], "rewards": self.model(**encoded).turn_rewards[0].tolist()}

    def postprocess(self, outputs):
        return [
            {"index": index, "reward": reward, "percentile": self.model.percentile(reward)}
            for index, reward in zip(outputs["turns"], outputs["rewards"])
        ]


__all__ = ["TurnRewardsPipeline"]
