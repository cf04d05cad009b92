"""Folders of models to push: their kind, the files that others need, and what is refused."""

import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open

from ..models.facial_affect.configuration_affect import FacialAffectConfig
from ..models.geli_reward.configuration_geli import GeliRewardConfig
from .cards import for_repo, is_form, read_own_card, updated, with_base
from .cards.base import hub_name
from .push import CARD, Push, read_card

PACKAGE = Path(__file__).parents[1]
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER = ("tokenizer_config.json",)
# Folders of `models/` whose files travel with the weights.
CODE = {"reward model": "geli_reward", "attribution": "geli_reward", "face classifier": "facial_affect"}
# Files beside the configuration, the weights and the code.
NEEDED = {
    "reward model": (*TOKENIZER, "chat_template.jinja"),
    "attribution": (*TOKENIZER, "chat_template.jinja", "hindsight.json", "hindsight.safetensors"),
    "face classifier": ("preprocessor_config.json",),
    "policy": TOKENIZER,
    "adapter": (),
}
# The kind of a repository on the Hub, by the first of these files in it.
MARKS = {
    "adapter_config.json": "adapter",
    "hindsight.json": "attribution",
    "modeling_affect.py": "face classifier",
    "modeling_geli.py": "reward model",
    "config.json": "policy",
}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
# Files to resume a training from, pickles among them, which are not sent.
OF_TRAINERS = ("optimizer.", "scheduler.", "scaler.", "rng_state", "trainer_state.json", "training_args.bin")
FOLDERS = ("additional_chat_templates",)  # of a tokenizer; other folders are checkpoints and the like


@dataclass(frozen=True, kw_only=True)
class ModelPush(Push):
    """A push of a model; it deletes the weights of an earlier push, and replaces no model of another kind."""

    repo_type = "model"
    stale = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")

    def merged(self, card: str) -> str:
        return self.card if is_form(card) else updated(card, ModelCard(self.card))

    def check(self, there: Collection[str]) -> None:
        """Refuse a repository of another kind of model.

        Raises:
            ValueError: it is one.
        """
        kind = next((kind for name, kind in MARKS.items() if name in there), self.what)
        if kind != self.what:
            raise ValueError(f"--repo: {self.repo} holds another kind of model ({kind}), expected a {self.what}")


def model_push(
    folder: str | Path, repo: str, *, base: str | None = None, scratch: Path | None = None, **how
) -> ModelPush:
    """Make a push of a model's folder.

    Args:
        folder: of the model.
        repo: owner/name.
        base: name on the Hub of an adapter's base model, in place of the one that its configuration has.
        scratch: folder for the configuration that names it.
        how: arguments of `Push`, such as `private`.

    Raises:
        OSError, ValueError: see `open_folder`; or the front matter of the card is not YAML, or the base is not
            owner/name, or given for a model that is no adapter.
    """
    kind, files = open_folder(folder, base=base)
    card = read_card(Path(folder)) and read_own_card(folder)
    if base is not None:
        config = json.loads(files[ADAPTER_CONFIG].read_text(encoding="utf-8"))
        files[ADAPTER_CONFIG] = scratch / ADAPTER_CONFIG
        files[ADAPTER_CONFIG].write_text(json.dumps(config | {"base_model_name_or_path": base}, indent=2), "utf-8")
        card = card and with_base(card, str(config.get("base_model_name_or_path")), base)
    return ModelPush(repo=repo, what=kind, files=files, card=card and for_repo(card, repo), **how)


def open_folder(folder: str | Path, *, base: str | None = None) -> tuple[str, dict[str, Path]]:
    """Check a model's folder, without loading weights or running code.

    Args:
        folder: written by a model's `save_pretrained`.
        base: name on the Hub of an adapter's base model. Default: that of its configuration.

    Returns:
        "reward model", "attribution", "face classifier", "policy" or "adapter"; and the files to send by their path
        in the repository, without the card and the files of a trainer.

    Raises:
        FileNotFoundError: the folder or a file in it is missing.
        ValueError: it holds a pickle, weights that are cut short, or another model than those of this project.
    """
    folder = Path(folder)
    kind, config = kind_and_config(folder)
    files = {}
    for path in sorted([*folder.iterdir(), *(path for name in FOLDERS for path in (folder / name).glob("*"))]):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != CARD and not name.startswith((".", *OF_TRAINERS)):
            _refuse_pickle(path)
            files[name] = path
    if kind in CODE:  # it may be missing in the folder
        code = (PACKAGE / "models" / CODE[kind]).glob("[!_]*.py")
        files = {path.name: path for path in sorted(code)} | files
    missing = sorted({*NEEDED[kind], *_weights(folder, kind)} - set(files))
    if missing:
        raise FileNotFoundError(f"{folder}: {', '.join(missing)} missing for a {kind}; save it again")
    for path in files.values():
        if path.suffix == ".safetensors":
            try:
                safe_open(path, framework="np")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path}: not a whole safetensors file ({error}); save the model again") from None
    if kind == "adapter":
        _check_base(folder, config.get("base_model_name_or_path") if base is None else base)
    elif base is not None:
        raise ValueError(f"--base: {folder} is a {kind}, expected an adapter")
    return kind, files


def kind_and_config(folder: Path) -> tuple[str, dict]:
    """The kind of a model's folder and its configuration.

    Args:
        folder: of the model.

    Raises:
        FileNotFoundError: it has no configuration.
        ValueError: the configuration is not JSON, or of no model of this project.
    """
    path = folder / "adapter_config.json"
    if not path.exists():
        path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); save the model again") from None
    if path.name == "adapter_config.json":
        return "adapter", config
    if config.get("model_type") == GeliRewardConfig.model_type:
        return ("attribution" if (folder / "hindsight.json").exists() else "reward model"), config
    if config.get("model_type") == FacialAffectConfig.model_type:
        return "face classifier", config
    if str((config.get("architectures") or [None])[0]).endswith(("ForCausalLM", "LMHeadModel")):
        return "policy", config
    raise ValueError(
        f"{path}: found model_type {config.get('model_type')!r} and architectures {config.get('architectures')}; "
        "expected a reward model, an attribution, a face classifier, a causal language model or an adapter"
    )


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix in PICKLES or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5") or zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: a pickle, which can run code where it is loaded. Save the model again as safetensors, or take "
            "the file out of the folder"
        )


def _weights(folder: Path, kind: str) -> set[str]:
    """Names of the files of weights, also of missing ones."""
    single = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
    index = folder / f"{single}.index.json"
    if not index.exists():
        return {single}
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())


def _check_base(folder: Path, base: str | None) -> None:
    if hub_name(base) is None:
        raise ValueError(
            f"{folder / ADAPTER_CONFIG}: the base model is {base!r}, expected a name on the Hub. Push the base model "
            "first and name it with --base OWNER/NAME, or push the merged model"
        )
