"""What a model's folder is, whether it is whole, and which of its files others need."""

import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from ..models.facial_affect.configuration_affect import FacialAffectConfig
from ..models.facial_affect.modeling_affect import FacialAffectModel
from ..models.geli_reward.configuration_geli import GeliRewardConfig
from ..models.geli_reward.modeling_geli import GeliRewardModel
from .cards import for_repo, is_form, own_card, updated
from .push import CARD, Push, read_card

PACKAGE = Path(__file__).parents[1]
MODELS = {"reward model": GeliRewardModel, "attribution": GeliRewardModel, "face classifier": FacialAffectModel}
TOKENIZER = ("tokenizer_config.json",)
CODE = {  # travels with the weights, by its folder in `models/`
    "reward model": ("geli_reward", ("configuration_geli.py", "modeling_geli.py", "pipeline_geli.py")),
    "face classifier": (
        "facial_affect",
        ("configuration_affect.py", "modeling_affect.py", "image_processing_affect.py"),
    ),
}
CODE["attribution"] = CODE["reward model"]
# Beside the configuration, the weights and the code.
NEEDED = {
    "reward model": (*TOKENIZER, "chat_template.jinja"),
    "attribution": (*TOKENIZER, "chat_template.jinja", "hindsight.json", "hindsight.safetensors"),
    "face classifier": ("preprocessor_config.json",),
    "policy": TOKENIZER,
    "adapter": (),
}
# What a repository with such a file holds, the first that fits. Other people's models may pass for a policy.
MARKS = {
    "adapter_config.json": "adapter",
    "hindsight.json": "attribution",
    "modeling_affect.py": "face classifier",
    "modeling_geli.py": "reward model",
    "config.json": "policy",
}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
# What a trainer writes to go on from, pickles among them, and nobody else can use.
OF_TRAINERS = ("optimizer.", "scheduler.", "scaler.", "rng_state", "trainer_state.json", "training_args.bin")
FOLDERS = ("additional_chat_templates",)  # of a tokenizer; other folders are checkpoints and the like


@dataclass(frozen=True, kw_only=True)
class ModelPush(Push):
    repo_type = "model"
    stale = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")  # weights of an earlier push

    def merged(self, card: str) -> str:
        return self.card if is_form(card) else updated(card, ModelCard(self.card))

    def check(self, there: Collection[str]) -> None:
        kind = next((kind for name, kind in MARKS.items() if name in there), self.what)
        if kind != self.what:
            raise ValueError(
                f"--repo: {self.repo} is taken by another kind of model ({kind}), which this {self.what} would "
                "replace. Choose another name"
            )


def model_push(folder: str | Path, repo: str, **how) -> ModelPush:
    """A model's folder as something to send.

    Args:
        how: of `Push`, such as `private`.

    Raises:
        As of `open_folder`.
    """
    kind, files = open_folder(folder)
    card = read_card(Path(folder)) and own_card(folder)  # the form that PEFT leaves is none
    return ModelPush(repo=repo, what=kind, files=files, card=card and for_repo(card, repo), **how)


def open_folder(folder: str | Path) -> tuple[str, dict[str, Path]]:
    """Look through a model's folder. No weights are loaded, and no code is run.

    Returns:
        "reward model", "attribution", "face classifier", "policy" or "adapter"; and what to send, by the path there,
        without the card and what only a trainer needs.

    Raises:
        FileNotFoundError: there is no such folder, or something is missing in it; the message says what.
        ValueError: it holds a pickle, weights that break off or have other shapes than its configuration says, or
            another model than those of this project.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one that a model's save_pretrained wrote")
    kind, config = kind_and_config(folder)
    files = {}
    for path in sorted([*folder.iterdir(), *(path for name in FOLDERS for path in (folder / name).glob("*"))]):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name == CARD or name.startswith((".", *OF_TRAINERS)):
            continue
        _refuse_pickle(path)
        files[name] = path
    room, code = CODE.get(kind, ("", ()))
    for name in code:  # a folder of an earlier version, or of the package itself, may be without
        files.setdefault(name, PACKAGE / "models" / room / name)
    missing = sorted({*NEEDED[kind], *_weights(folder, kind)} - set(files))
    if missing:
        raise FileNotFoundError(
            f"{folder}: a {kind} that is not whole: {', '.join(missing)} missing. Save it again with save_pretrained "
            "(of the model, and of its tokenizer or image processor), and let that finish"
        )
    shapes = {path: _shapes(path) for path in files.values() if path.suffix == ".safetensors"}
    if kind == "adapter":
        _check_base(folder, config)
    else:
        _check_shapes(folder, kind, {path: shapes[path] for path in shapes if path.name in _weights(folder, kind)})
    return kind, files


def kind_and_config(folder: Path) -> tuple[str, dict]:
    """What the folder holds, as of `open_folder`, by its configuration alone."""
    name = "adapter_config.json" if (folder / "adapter_config.json").exists() else "config.json"
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(
            f"{folder}: no config.json and no adapter_config.json, found {found}; expected the folder of a model, as "
            "its save_pretrained wrote it"
        ) from None
    except ValueError as error:
        raise ValueError(f"{folder / name}: no JSON ({error}); save the model again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / name}: expected a JSON object; save the model again")
    if name == "adapter_config.json":
        return "adapter", config
    if config.get("model_type") == GeliRewardConfig.model_type:
        return ("attribution" if (folder / "hindsight.json").exists() else "reward model"), config
    if config.get("model_type") == FacialAffectConfig.model_type:
        return "face classifier", config
    if str((config.get("architectures") or [None])[0]).endswith(("ForCausalLM", "LMHeadModel")):
        return "policy", config
    raise ValueError(
        f"{folder}: config.json is of a {config.get('model_type')!r} with the architectures "
        f"{config.get('architectures')}; expected a reward model, an attribution, a face classifier, a policy (causal "
        "language model) or an adapter"
    )


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix in PICKLES or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5") or zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: a pickle, which can run code on the machine of who loads it. Expected safetensors: save the "
            "model again with save_pretrained, or take the file out of the folder"
        )


def _weights(folder: Path, kind: str) -> set[str]:
    """The names of the files that the weights are in, whether these are there or not."""
    single = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
    index = folder / f"{single}.index.json"
    if not index.exists():
        return {single}
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{index}: no index of weights; save the model again") from None


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """By the names of the tensors in a safetensors file, without these."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: no whole safetensors file ({error}); save the model again") from None


def _check_shapes(folder: Path, kind: str, found: dict[Path, dict[str, tuple[int, ...]]]) -> None:
    """That the weights are those of the configuration, as far as a model of random weights can tell."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            return
        with torch.device("meta"):
            model = MODELS[kind](config) if kind in MODELS else AutoModelForCausalLM.from_config(config)
    except (ValueError, ImportError):
        if kind in MODELS:
            raise
        return  # a policy with an architecture of its own
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for path, shapes in found.items():
        for name, shape in shapes.items():
            if shape != expected.get(name, shape):
                raise ValueError(
                    f"{path}: {name} has the shape {shape}, and config.json makes it {expected[name]}; the two are of "
                    "different models, so save the model again"
                )


def _check_base(folder: Path, config: dict) -> None:
    base = config.get("base_model_name_or_path")
    if not base or Path(base).exists() or str(base).count("/") > 1 or str(base).startswith((".", "/")):
        raise ValueError(
            f"{folder}: the adapter's base_model_name_or_path is {base!r}, which nobody else has. Push the base "
            "first, and put its name on the Hub into adapter_config.json and README.md; or push the merged model"
        )
