"""Rendering of a card: a template of `hub/templates`, the facts of a run, and metadata as the Hub reads it.

Text between `<!-- generated: name -->` and `<!-- /generated: name -->` is rewritten on every save; see `update`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard, EvalResult, ModelCard
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ... import __version__

TEMPLATES = Path(__file__).parents[1] / "templates"
CARD = "README.md"
NOT_TOLD = "Not told."
# Licences of the corpora. The licence of a user's own file is unknown here.
SOURCES = {
    "sample": "The package generates it: simulated people, no person's words (Apache 2.0).",
    "candor": "CANDOR (Reece et al., Science Advances, 2023), under its own terms, which forbid redistribution.",
    "topical_chat": "Topical-Chat (Gopalakrishnan et al., Interspeech 2019), Community Data License Agreement, "
    "Sharing 1.0.",
    "uss": "User Satisfaction Simulation (Sun et al., SIGIR 2021), annotations without a stated licence.",
    "esconv": "ESConv (Liu et al., ACL 2021), CC BY-NC 4.0.",
    "chitchat": "Chit-Chat (Myers et al., ICAART 2020), MIT.",
}
METADATA = ("license", "language", "datasets")
# Variables of templates that may stay away.
UNKNOWN = ("made", "recipe", "adapter", "ratings", "guard", "method", "reward_model", "held_out", "limits")
VERSIONS = ("torch", "transformers", "trl", "peft", "datasets")
TOKEN = re.compile(r"\bhf_\w{3,}")
_templates = Environment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Measured:
    """A figure for the front matter.

    Args:
        name: its title in a table.
        kind: its metric type on the Hub, such as `spearmanr`.
        value: number or `Interval` (estimate, low, high).
    """

    name: str
    kind: str
    value: float | Sequence[float]

    @property
    def estimate(self) -> float:
        """The number, without its interval."""
        return float(self.value if isinstance(self.value, (int, float)) else self.value[0])

    def result(self, task: str, measured_on: Mapping[str, str]) -> EvalResult:
        """The entry of `model-index`; an interval without NaN adds its bounds.

        Args:
            task: the card's pipeline tag.
            measured_on: see `render_card`.
        """
        args, name = None, self.name
        if not isinstance(self.value, (int, float)):
            _, low, high = self.value
            if low == low:
                args = {"interval": [round(low, 4), round(high, 4)], "level": 0.95}
                name += f" (95 % interval {low:.3f} to {high:.3f})"
        return EvalResult(
            task_type=task,
            dataset_type=measured_on["type"],
            dataset_name=measured_on["name"],
            dataset_split=measured_on.get("split"),
            metric_type=self.kind,
            metric_name=name,
            metric_value=round(self.estimate, 4),
            metric_args=args,
        )


def render_card(
    template: str,
    repo_id: str,
    *,
    figures: Sequence[Measured] = (),
    measured_on: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **facts: Any,
) -> ModelCard | DatasetCard:
    """Render a card from `templates/{template}.md`.

    Args:
        template: name of the template, without `.md`.
        repo_id: title of the card, and the name that its code loads.
        figures: entries of `model-index`; they need `measured_on`.
        measured_on: `type`, `name` and optionally `split` of the evaluation data.
        metadata: entries of the front matter; None leaves one out. `license`, `language` and `datasets` may also stand
            among the facts.
        facts: variables of the template.

    Raises:
        jinja2.UndefinedError: a variable of the template is missing.
    """
    unknown = {"training_data": NOT_TOLD} | dict.fromkeys(UNKNOWN)
    text = _templates.get_template(f"{template}.md").render({"repo_id": repo_id} | unknown | facts)
    card = (DatasetCard if template == "dataset" else ModelCard)(re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n")
    for name, value in ({name: facts.get(name) for name in METADATA} | dict(metadata or {})).items():
        if value is not None:
            card.data[name] = value
    if figures:
        card.data.model_name = repo_id
        card.data.eval_results = [figure.result(card.data.pipeline_tag, measured_on) for figure in figures]
    return card


def describe_origin(
    command: Iterable[str] = (), *, settings: Mapping | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Describe a run for its card: command, settings, versions, date and duration.

    Absolute paths are cut to their last name and tokens are masked, because a card is public.

    Args:
        command: words of the command line.
        settings: names and values, also nested.
        seconds: duration.
    """
    shown = yaml.safe_dump(_public(settings), sort_keys=False).strip() if settings else None
    return {
        "command": shlex.join(_public(word) for word in command),
        "settings": shown,
        "versions": ", ".join([f"geli-hf {__version__}", *(f"{name} {version(name)}" for name in VERSIONS)]),
        "date": datetime.now(UTC).date().isoformat(),
        "minutes": None if seconds is None else round(seconds / 60, 1),
    }


def corpus_licence(corpus: str) -> str:
    """Origin and licence of a corpus, by its name or path."""
    return SOURCES.get(corpus, "Its licence is not told.")


def card_title(folder: str | Path) -> str:
    """Title of a folder in its card: a relative path as it is, of an absolute one the last name."""
    folder = Path(folder)
    return folder.name if folder.is_absolute() else folder.as_posix()


def hub_name(name: str | None) -> str | None:
    """The name if it can be a repository's on the Hub and is no folder here; else None."""
    return name if name and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not Path(name).exists() else None


def _public(value: Any) -> Any:
    """A value as YAML can write it, without folders of this machine and without tokens."""
    if isinstance(value, Mapping):
        return {str(name): _public(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(part) for part in value]
    if isinstance(value, Enum):
        return _public(value.value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    option, equals, value = str(value).rpartition("=") if str(value).startswith("--") else ("", "", str(value))
    value = TOKEN.sub("hf_***", value)
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)
