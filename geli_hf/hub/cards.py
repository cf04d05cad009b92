"""The card of what is published: a template, filled with what a run's own files tell, and kept where a person wrote.

A card is Markdown with front matter, as the Hub reads it. What stands between `<!-- generated: name -->` and
`<!-- /generated: name -->` is the run's: every save writes it anew. All else belongs to whoever edits it: words
outside these marks, marked parts that were taken out, and what the front matter says, but for the figures that were
measured on the same data.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from datasets import Dataset
from huggingface_hub import DatasetCard, EvalResult, ModelCard
from huggingface_hub.repocard import RepoCard
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from transformers.utils import logging

from .. import __version__
from ..cache import whole
from ..evaluation.comparison import OWN_REWARD, policy_table
from ..metrics.table import COLUMNS

if TYPE_CHECKING:  # torch comes with them, and the card of sessions needs none
    from ..models.facial_affect.configuration_affect import FacialAffectConfig
    from ..models.geli_reward.configuration_geli import GeliRewardConfig

logger = logging.get_logger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
CARD = "README.md"
NOT_TOLD = "Not told."
# What is known of the licences of the corpora; who learns from a file of their own has to say it themselves.
SOURCES = {
    "sample": "It is made by the package: simulated people, whose words are nobody's (Apache 2.0).",
    "candor": "CANDOR (Reece et al., Science Advances, 2023), under its own terms, which forbid to publish it again.",
    "topical_chat": "Topical-Chat (Gopalakrishnan et al., Interspeech 2019), Community Data License Agreement, "
    "Sharing 1.0.",
    "uss": "User Satisfaction Simulation (Sun et al., SIGIR 2021), annotations without a stated licence.",
    "esconv": "ESConv (Liu et al., ACL 2021), CC BY-NC 4.0.",
    "soda": "SODA (Kim et al., EMNLP 2023), CC BY 4.0, written by a language model.",
}
# What goes into `model-index`, and what the Hub calls it.
REWARD_FIGURES = {
    "within_session_spearman": "spearmanr",
    "within_session_auc": "roc_auc",
    "session_spearman": "spearmanr",
    "global_loss": "mse",
}
# What else makes the rewards of an adapter those that were learned.
OF_BACKBONE = (
    *("head", "head_hidden_size", "pooling", "layers", "context_messages", "max_length"),
    *("aggregation", "score_mean", "score_std"),
)
MEANING = {
    "session_id": "of its own for every row",
    "conversation_id": "the conversation that was rated, perhaps by several people",
    "messages": "`role` and `content`; the assistant is the one whose turns are rewarded, the user is the rater",
    "score": "the rating of the session",
    "scores": "further ratings of the session, by name",
    "rater_id": "who rated",
    "feedback": "signals by name, each with one number per turn of the assistant",
    "start": "seconds, one per message",
    "stop": "seconds, one per message",
    "behaviour": "the listener's behaviour in words, one text per turn of the assistant",
    "turn_rating": "a rating per turn of the assistant: for evaluation, never for training",
}
# What is told of every training, if its trainer has it.
HYPERPARAMETERS = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "seed",
)
VERSIONS = ("geli-hf", "torch", "transformers", "trl", "peft", "datasets")
NAMED = re.compile(r"^<!-- geli: (.+?) -->$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)
TOKEN = re.compile(r"\bhf_\w{3,}")
GENERATED = re.compile(r"<!-- generated: ([\w ]+) -->\n(.*?)<!-- /generated: \1 -->", re.DOTALL)
_templates = Environment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Measured:
    """A figure as it goes into the front matter.

    Args:
        name: what it is called in a table.
        kind: what the Hub calls it, such as `spearmanr`.
        value: number or `Interval` (estimate, low, high).
    """

    name: str
    kind: str
    value: float | Sequence[float]


def fill(
    template: str,
    repo_id: str,
    *,
    figures: Sequence[Measured] = (),
    measured_on: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **told,
) -> ModelCard | DatasetCard:
    """A card from one of `templates/*.md`.

    Args:
        template: its name there, without `.md`.
        repo_id: what the card calls it, and loads it by.
        figures: what goes into `model-index`, with the bounds of each interval; needs `measured_on`.
        measured_on: `type`, `name` and perhaps `split` of the data that the figures are of.
        metadata: of the front matter, such as `license`; None where it isn't known, which then is not said.
        told: what the template asks for.

    Raises:
        jinja2.UndefinedError: the template asks for something that was not told.
    """
    text = _templates.get_template(f"{template}.md").render(
        {"repo_id": repo_id} | dict.fromkeys(("made", "recipe", "adapter")) | told
    )
    card = (DatasetCard if template == "dataset" else ModelCard)(re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n")
    for name, value in (metadata or {}).items():
        if value is not None:
            card.data[name] = value
    if figures:
        card.data.model_name = repo_id
        card.data.eval_results = [_result(figure, card.data.pipeline_tag, measured_on) for figure in figures]
    return card


def _result(figure: Measured, task: str, on: Mapping[str, str]) -> EvalResult:
    value, args, name = figure.value, None, figure.name
    if not isinstance(value, (int, float)):
        value, low, high = value
        if low == low:
            args = {"interval": [round(low, 4), round(high, 4)], "level": 0.95}
            name += f" (95 % interval {low:.3f} to {high:.3f})"
    return EvalResult(
        task_type=task,
        dataset_type=on["type"],
        dataset_name=on["name"],
        dataset_split=on.get("split"),
        metric_type=figure.kind,
        metric_name=name,
        metric_value=round(value, 4),
        metric_args=args,
    )


def made(
    command: Iterable[str] = (), *, settings: Mapping | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """How something was made, for its card and its run's files: the command, its settings, versions, date and time.

    Folders of this machine are nobody's business: absolute paths are shortened to their last name. Tokens are masked.
    """
    shown = yaml.safe_dump(_shortened(settings), sort_keys=False).strip() if settings else None
    return {
        "command": shlex.join(_shortened(word) for word in command),
        "settings": shown,
        "versions": ", ".join(f"{name} {_version(name)}" for name in VERSIONS),
        "date": datetime.now(UTC).date().isoformat(),
        "minutes": None if seconds is None else round(seconds / 60, 1),
    }


def hyperparameters(args: Any, more: Iterable[str] = ()) -> dict[str, Any]:
    """What a card tells of a trainer's arguments: those with the names of every training, and more."""
    return {name: getattr(args, name) for name in (*HYPERPARAMETERS, *more) if hasattr(args, name)}


def source_of(corpus: str) -> str:
    """What is known of the licence of a corpus, by its name or path."""
    return SOURCES.get(corpus, "Under which licence, was not told.")


def _shortened(value: Any) -> Any:
    """What YAML can write and everybody may read: no folders of this machine, and no tokens."""
    if isinstance(value, Mapping):
        return {str(name): _shortened(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(each) for each in value]
    if isinstance(value, Enum):
        return _shortened(value.value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    option, equals, value = str(value).rpartition("=") if str(value).startswith("--") else ("", "", str(value))
    value = TOKEN.sub("hf_***", value)
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)


def _version(name: str) -> str:
    try:
        return __version__ if name == "geli-hf" else version(name)
    except PackageNotFoundError:
        return "(not installed)"


# ------------------------------------------------------------------------------------------------ what is kept


def save_card(card: RepoCard, folder: str | Path) -> str:
    """Write the card into a folder, over one that is there only where that is generated, see `updated`.

    A card that can't be read is kept as it is, with a warning: nobody should lose a training or their words to it.

    Returns:
        What stands there now.
    """
    path = Path(folder) / CARD
    text, own = str(card), own_card(folder)
    if own is not None:
        try:
            text = updated(own, card)
        except ValueError as error:
            logger.warning(f"{path}: kept as it is, for {error}")
            return own
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def own_card(folder: str | Path) -> str | None:
    """The text of a folder's card; None if there is none, or only a form."""
    path = Path(folder) / CARD
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    return None if is_form(text) else text


def is_form(card: str) -> bool:
    """Whether this is only what transformers, PEFT or a trainer leaves for somebody to fill in."""
    return ("[More Information Needed]" in card and "# Model Card for " in card) or "generated_from_trainer" in card


def keep_from_peft(model: Any) -> None:
    """From now on a `PeftModel` leaves the card of a folder that it is saved to alone.

    Into ours it would write tags of its own, and the path of the model under it.
    """
    model.create_or_update_model_card = _nothing


def _nothing(folder: str) -> None:
    pass


def updated(card: str, new: RepoCard) -> str:
    """A card that is there, with what a new one knows better.

    Marked parts have the new text, if both have them. Of the front matter everything is kept that is there, and what
    is not is added; results in `model-index` are the new ones, beside those on other data. A card without any mark is
    somebody's own and is returned as it is.

    Raises:
        ValueError: the front matter of the card that is there is not YAML; the message names the line.
    """
    if not GENERATED.search(card):
        return card
    own, fresh = read_metadata(card), new.data.to_dict()
    parts = {found[1]: found[0] for found in GENERATED.finditer(new.content)}
    text = GENERATED.sub(lambda found: parts.get(found[1], found[0]), FRONT_MATTER.sub("", card, count=1))
    both = fresh | own
    if "model-index" in fresh:
        both["model-index"] = _results(own.get("model-index"), fresh["model-index"])
    return f"---\n{yaml.safe_dump(both, sort_keys=False, allow_unicode=True)}---\n{text}"


def _results(old: Any, new: list[dict]) -> list[dict]:
    [model] = new
    measured = [result["dataset"] for result in model["results"]]
    others = [result for each in old or [] for result in each.get("results", []) if result["dataset"] not in measured]
    return [model | {"results": [*model["results"], *others]}]


def read_metadata(card: str) -> dict[str, Any]:
    """The front matter of a card, {} where it has none.

    Raises:
        ValueError: it is not YAML, or no mapping.
    """
    found = FRONT_MATTER.match(card)
    if not found:
        if card.startswith("---"):
            raise ValueError("its front matter has no end: a line of three dashes is missing")
        return {}
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        line = getattr(error, "problem_mark", None)
        where = f" in line {line.line + 2}" if line else ""
        raise ValueError(
            f"its front matter is no YAML{where}: {getattr(error, 'problem', error)}; correct it"
        ) from None
    if not isinstance(data or {}, Mapping):
        raise ValueError("its front matter is no mapping of names to values; correct it")
    return dict(data or {})


def for_repo(card: str, repo_id: str) -> str:
    """The card of a folder as that of a repository: its title is that, and its snippets load it by this name."""
    found = NAMED.search(card)
    if not found:
        return card
    name = re.escape(found[1])
    card = re.sub(rf"^(# |- name: |<!-- geli: ){name}(?=$| -->$)", rf"\g<1>{repo_id}", card, flags=re.MULTILINE)
    return card.replace(f'"{found[1]}"', f'"{repo_id}"')


def name_of(folder: str | Path) -> str:
    """What a card calls the folder that it lies in: the path if it is relative, else only the last name."""
    folder = Path(folder)
    return folder.name if folder.is_absolute() else folder.as_posix()


# ------------------------------------------------------------------------------------------------ kinds of cards


def reward_model_card(
    repo_id: str,
    *,
    base_model: str = "",
    adapter: GeliRewardConfig | None = None,
    training_data: str = NOT_TOLD,
    rating: str = NOT_TOLD,
    row: Mapping[str, Any] | None = None,
    table: str | None = None,
    held_out: str | None = None,
    measured_on: Mapping[str, str] | None = None,
    signals: Iterable[str] | None = None,
    made: Mapping | None = None,
    recipe: str | None = None,
    **metadata,
) -> ModelCard:
    """The card of a reward model; or, with the signals that it reads, of an attribution.

    Args:
        base_model: name of the backbone on the Hub; a folder is left out.
        adapter: if it is an adapter, the configuration of the model that it was trained on, with its name or folder.
        row: figures by name, as of `evaluation.evaluate_rewards`.
        table: these and others in Markdown, if there is more to show than the row.
        held_out, measured_on: what they were measured on, in words, and as of `fill`.
        made, recipe: how it was made, as of `made`, and in words.
        metadata: `license`, `language`, `datasets`.
    """
    figures = [
        Measured(COLUMNS[name], kind, row[name])
        for name, kind in REWARD_FIGURES.items()
        if row and name in row and not math.isnan(_estimate(row[name]))
    ]
    if figures and table is None:
        table = "\n".join(["| | |", "| --- | ---: |", *(f"| {each.name} | {each.value:.3f} |" for each in figures)])
    card = fill(
        "reward_model" if signals is None else "attribution",
        repo_id,
        figures=figures,
        measured_on=measured_on,
        metadata=metadata | {"base_model": _on_hub(base_model)},
        training_data=training_data,
        rating=rating,
        held_out=held_out,
        figures_table=table,
        signals=", ".join(f"`{name}`" for name in signals or ()) or "none",
        made=made,
        recipe=recipe,
        adapter=adapter and _of_backbone(adapter),
    )
    if adapter:
        card.data.library_name = "peft"
    return card


def _of_backbone(config: GeliRewardConfig) -> str:
    """The arguments of `GeliRewardModel.from_backbone` for a model of this configuration."""
    base, usual = config.text_config._name_or_path, type(config)()
    own = {name: getattr(config, name) for name in OF_BACKBONE if getattr(config, name) != getattr(usual, name)}
    return ", ".join([repr(base or "the backbone"), *(f"{name}={value!r}" for name, value in own.items())])


def policy_card(
    repo_id: str,
    *,
    base_model: str = "",
    adapter: bool = False,
    method: str | None = None,
    reward_model: str | None = None,
    training_data: str = NOT_TOLD,
    recipe: str | None = None,
    made: Mapping | None = None,
    comparison: Mapping[str, Any] | None = None,
    table: str | None = None,
    held_out: str | None = None,
    measured_on: Mapping[str, str] | None = None,
    limits: str | None = None,
    **metadata,
) -> ModelCard:
    """The card of a policy.

    Args:
        base_model: name on the Hub of the model that it was made from; of a folder only an adapter's card tells the
            name.
        adapter: whether it is an adapter to that.
        method: "grpo", "rloo" or "sft".
        reward_model: what it was aligned to.
        comparison: figures of a `PolicyComparison`.
        table: these and others in Markdown, if there is more to show.
        limits: what else there is to say of what it is for.
        training_data, recipe, made, held_out, measured_on, metadata: as of a reward model.
    """
    figures = []
    if comparison:
        figures = [
            Measured(f"Win rate over the policy before alignment, by {comparison['judge']}", "win_rate", value)
            for value in [comparison["win_rate"]]
            if not math.isnan(_estimate(value))
        ]
    judge = comparison and comparison["judge"]
    if judge == OWN_REWARD and reward_model:
        judge = f"`{reward_model}`, the reward model that the policy was trained to please"
    card = fill(
        "policy",
        repo_id,
        figures=figures,
        measured_on=measured_on,
        metadata=metadata | {"base_model": _on_hub(base_model)},
        method=method,
        reward_model=reward_model,
        training_data=training_data,
        recipe=recipe,
        made=made,
        judge=judge,
        held_out=held_out,
        figures_table=policy_table(comparison) if comparison and table is None else table,
        adapter=adapter,
        base=f"`{name_of(base_model)}`" if base_model else "that it was trained on",
        limits=limits,
    )
    card.data.tags += ["trl", method] if method else []
    if adapter:
        card.data.library_name = "peft"
    return card


def rating_of(config: GeliRewardConfig) -> str:
    """What a reward model's configuration tells of the ratings that it learned from."""
    if (config.score_mean, config.score_std) == (0.0, 1.0):  # as it is before training
        return NOT_TOLD
    return f"its mean was {config.score_mean:.3g}, and its standard deviation {config.score_std:.3g}."


def facial_affect_card(
    repo_id: str, *, config: FacialAffectConfig, training_data: str = NOT_TOLD, **told
) -> ModelCard:
    """The card of a classifier of faces.

    Args:
        told: what the template asks for, as far as it is known; and as of `fill`.
    """
    net = f"the backbone `{config.backbone}` on grey faces of {config.image_size} x {config.image_size} pixels"
    nothing = dict.fromkeys(("scale", "shift", "learnt", "figures_table"))
    return fill("facial_affect", repo_id, **nothing | {"net": net, "training_data": training_data} | told)


def dataset_card(splits: Mapping[str, Dataset], repo_id: str, *, source: str, raters: str, **metadata) -> DatasetCard:
    """The card of sessions.

    Args:
        splits: Session rows by split.
        source: where they come from, and under which licence.
        raters: what became of the ids of those who rated.
        metadata: `license`, `language`.
    """
    columns = next(iter(splits.values())).column_names
    return fill(
        "dataset",
        repo_id,
        metadata=metadata,
        source=source,
        raters=raters,
        columns=_table(("column", ""), [(f"`{name}`", MEANING[name]) for name in columns]),
        sizes=_table(
            ("split", "sessions", "conversations"),
            [(f"`{name}`", len(part), len(set(part["conversation_id"]))) for name, part in splits.items()],
        ),
    )


def _table(head: Sequence, rows: Iterable[Sequence]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ("---",) * len(head), *rows))


def _on_hub(name: str | None) -> str | None:
    return name if name and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not Path(name).exists() else None


def _estimate(value: float | Sequence[float]) -> float:
    return float(value if isinstance(value, (int, float)) else value[0])
