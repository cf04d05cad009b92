"""Cards of the shipped models: rendered from their figures, and the same in both places.

python tests/hub/test_model_cards.py    renders them anew
"""

import json
import sys
from functools import cache
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # where a script finds `scripts` and `loopback_hub`

from loopback_hub import cards as hub_rules  # noqa: E402
from scripts import EXAMPLES, as_module  # noqa: E402

from geli_hf.models.facial_affect.configuration_affect import FacialAffectConfig  # noqa: E402

WEIGHTS = ROOT / "geli_hf" / "weights"
PAGES = {
    "facial_affect": "facial_affect.md",
    "policy": "small_policy.md",
    "policy_adapter": "policy_adapter.md",
    "policy_reward": "policy_reward.md",
    "reward": "reward.md",
}
# Their figures are in the report of `evaluate_real_policy.py`.
ADAPTERS = {"aligned_adapter": "aligned_policy.md", "sft_adapter": "sft_adapter.md"}


def script(*names: str):
    """Import the first of these scripts that exists."""
    return as_module(next(path for name in names for path in EXAMPLES.rglob(name)))


@cache
def rendered() -> dict[str, ModelCard]:
    """Render the card of each folder of weights."""
    figures = {
        name: json.loads((WEIGHTS / name / "figures.json").read_text(encoding="utf-8"))
        for name in ("facial_affect", "policy", "reward")
    }
    config = FacialAffectConfig.from_pretrained(WEIGHTS / "facial_affect")
    faces = script("affect_figures.py").card(figures["facial_affect"], config)
    own = {"facial_affect": faces, "reward": script("ship_reward.py").card(figures["reward"])}
    return own | script("policy_cards.py", "train_policy.py").cards(figures["policy"], WEIGHTS)


def test_every_model_that_ships_has_a_page():
    assert {path.parent.name for path in WEIGHTS.glob("*/config.json")} <= set(PAGES)
    assert {path.name for path in (ROOT / "model_cards").iterdir()} == {
        "README.md",
        *PAGES.values(),
        *ADAPTERS.values(),
    }


@pytest.mark.parametrize("folder", ADAPTERS)
def test_a_card_of_an_adapter_is_the_same_in_both_places_and_valid(folder):
    text = (WEIGHTS / folder / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "model_cards" / ADAPTERS[folder]).read_text(encoding="utf-8") == text
    assert hub_rules.validate(text, "model") == ([], [])
    assert ModelCard(text).data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize("folder", PAGES)
def test_a_card_is_rendered_from_the_figures_and_valid(folder):
    text = str(rendered()[folder])
    for path in (WEIGHTS / folder / "README.md", ROOT / "model_cards" / PAGES[folder]):
        assert path.read_text(encoding="utf-8") == text, path
    assert hub_rules.validate(text, "model") == ([], [])
    assert ModelCard(text).data.license


if __name__ == "__main__":
    for folder, card in rendered().items():
        for path in (WEIGHTS / folder / "README.md", ROOT / "model_cards" / PAGES[folder]):
            path.write_text(str(card), encoding="utf-8")
