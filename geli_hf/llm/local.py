"""Chat model of `transformers` on this machine: nothing is sent anywhere."""

import os
import threading
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..models.loading import default_device
from ..sessions import Message
from .backend import Answer, BackendError, CallError, default_max_tokens


class LocalModel:
    """Causal language model with a chat template. It answers greedily, one question at a time.

    Nothing enforces the JSON schema, so a small model often fails.

    Args:
        model: a folder, or a name on the Hub. It is loaded with the first question.
        max_tokens: limit of an answer. Default: enough for the numbers alone.
        device: of the model. Default: the accelerator if there is one.
        dtype: of its weights, such as "bfloat16". Default: as they were saved.
    """

    def __init__(
        self, model: str, *, max_tokens: int | None = None, device: str | None = None, dtype: str | None = None
    ):
        self.model, self.max_tokens, self.device, self.dtype = str(model), max_tokens, device, dtype
        self._lock = threading.Lock()

    @cached_property
    def identity(self) -> dict:
        identity = {"model": self.model, "backend": "transformers"}
        if self.dtype is not None:  # other weights, which may answer otherwise
            identity["dtype"] = self.dtype
        if os.path.isdir(self.model):  # its weights may change under the same name
            files = [file for file in sorted(Path(self.model).iterdir()) if file.is_file()]
            identity["files"] = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        return identity

    def parameters(self, turns: int) -> dict:
        return {"max_tokens": self.max_tokens or default_max_tokens(turns)}

    def ask(self, messages: list[Message], schema: dict, parameters: dict, stop: threading.Event) -> Answer:
        """Generate greedily; see `Backend.ask`.

        Raises:
            BackendError: the run has ended, or the model has no chat template.
            CallError: the question does not fit into the model's context.
        """
        with self._lock:
            if stop.is_set():
                raise BackendError("the run has ended")
            tokenizer, model = self._loaded
            inputs = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            ).to(model.device)
            prompt_tokens, max_tokens = inputs["input_ids"].shape[1], parameters["max_tokens"]
            context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            if context is not None and prompt_tokens + max_tokens > context:
                raise CallError(
                    "the question is too long for the model",
                    f"{prompt_tokens} tokens and {max_tokens} for the answer, of {context}; choose a smaller window",
                )
            with torch.inference_mode():
                pad = tokenizer.eos_token_id  # nothing is padded in a batch of one
                output = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens, pad_token_id=pad)
            generated = output[0, prompt_tokens:]
            cut = len(generated) == max_tokens
            return Answer(tokenizer.decode(generated, skip_special_tokens=True), cut, prompt_tokens, len(generated))

    @cached_property
    def _loaded(self):
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        if tokenizer.chat_template is None:
            raise BackendError(f"{self.model} has no chat template, so it is no chat model")
        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=self.dtype or "auto").eval()
        return tokenizer, model.to(self.device or default_device())
