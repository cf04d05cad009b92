"""A chat model of `transformers` on this machine: nothing is sent anywhere."""

import os
import threading
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..sessions import Message
from .backend import Answer, BackendError, CallError
from .endpoint import TOKENS, TOKENS_PER_TURN


class LocalModel:
    """A causal language model with a chat template. It answers greedily, one question at a time.

    Nothing holds it to the JSON schema, so that a small model will often fail.

    Args:
        model: a folder, or a name on the Hub. It is loaded when the first question is asked.
        max_tokens: of an answer. Default: enough for the numbers alone.
        dtype: of the weights; by default as they were saved.
    """

    def __init__(self, model: str, *, max_tokens: int | None = None, dtype: str | torch.dtype = "auto"):
        self.model, self.max_tokens, self.dtype = str(model), max_tokens, dtype
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LocalModel({self.model!r})"

    @cached_property
    def identity(self) -> dict:
        identity = {"model": self.model, "backend": "transformers"}
        if os.path.isdir(self.model):  # the weights of a folder may be others tomorrow
            files = [file for file in sorted(Path(self.model).iterdir()) if file.is_file()]
            identity["files"] = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        return identity

    def parameters(self, turns: int) -> dict:
        return {"max_tokens": self.max_tokens or TOKENS + TOKENS_PER_TURN * turns}

    def ask(self, messages: list[Message], schema: dict, parameters: dict, stop: threading.Event) -> Answer:
        with self._lock:
            if stop.is_set():
                raise BackendError("the run has ended")
            tokenizer, model = self._loaded
            inputs = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            ).to(model.device)
            asked, room = inputs["input_ids"].shape[1], parameters["max_tokens"]
            context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            if context is not None and asked + room > context:
                raise CallError(
                    "the question is too long for the model",
                    f"{asked} tokens and {room} for the answer, of {context}; choose a smaller window",
                )
            with torch.inference_mode():
                pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
                output = model.generate(**inputs, do_sample=False, max_new_tokens=room, pad_token_id=pad)
            written = output[0, asked:]
            ends = model.generation_config.eos_token_id
            ends = ends if isinstance(ends, list) else [ends]
            cut = len(written) == room and written[-1].item() not in ends
            return Answer(tokenizer.decode(written, skip_special_tokens=True), cut, asked, len(written))

    @cached_property
    def _loaded(self):
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        if tokenizer.chat_template is None:
            raise BackendError(f"{self.model} has no chat template, so it is no chat model")
        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=self.dtype).eval()
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        return tokenizer, model.to(device)
