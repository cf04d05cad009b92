"""Ship the reward model of a run of `real_ratings.py`: its head, its figures and its card.

    python examples/real_ratings.py --conversations 0 --fit_turns 30000 --topical_chat DATA/topical_chat
    python examples/recipes/ship_reward.py runs/real --topical_chat DATA/topical_chat

Only the head goes into `geli_hf/weights/reward`; it is joined with its backbone when it is loaded.
"""

import argparse
import json
from pathlib import Path

from huggingface_hub import ModelCard

from geli_hf import GeliRewardModel, load_sessions
from geli_hf.evaluation.report import write_text
from geli_hf.hub.cards import Measured, describe_origin, render_card
from geli_hf.metrics.metrics import Interval
from geli_hf.metrics.table import aligned_table, as_json, evaluate_rewards
from geli_hf.models.geli_reward.joined_geli import save_head
from geli_hf.models.geli_reward.modeling_geli import DEFAULT_BACKBONE

ROOT = Path(__file__).parents[2]
FOLDER, PAGE = ROOT / "geli_hf" / "weights" / "reward", ROOT / "model_cards" / "reward.md"
SESSIONS = 400  # of Topical-Chat, to measure on
COMMAND = "python examples/real_ratings.py --conversations 0 --fit_turns 30000 --topical_chat DATA/topical_chat"
TURNS = {"within_session_spearman": "within sessions", "spearman_given_length": "within sessions, length held fixed"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--topical_chat", required=True, help="folder of Topical-Chat, whose test_freq is measured on")
    arguments = parser.parse_args()
    model = GeliRewardModel.from_pretrained(arguments.run / "reward_model")
    figures = json.loads((arguments.run / "figures.json").read_text(encoding="utf-8"))
    test = load_sessions("topical_chat", data_dir=arguments.topical_chat, split="test_freq").select(range(SESSIONS))
    rewards = [session["turn_rewards"] for session in model.score_sessions(test)]
    row = evaluate_rewards(test, rewards, None, model.config.score_mean)
    figures["topical_chat"] = as_json({name: row[name] for name in TURNS})
    figures["made"] = describe_origin([], settings={}, seconds=None) | {"command": COMMAND}
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_head(model, FOLDER, DEFAULT_BACKBONE)
    write_text(FOLDER / "figures.json", json.dumps(figures, indent=1) + "\n")
    for path in (FOLDER / "README.md", PAGE):
        write_text(path, str(card(figures)))


def card(figures: dict) -> ModelCard:
    """Render the card from the figures."""
    agreement, contrast = figures["agreement"], figures["contrast"]["shares"]
    rows = [[f"held-out session rating: {name}", str(Interval(**value))] for name, value in agreement.items()]
    rows += [[f"fitting answer above a foil: {name}", str(Interval(**value))] for name, value in contrast.items()]
    rows += [
        [f"Topical-Chat, {TURNS[name]}", str(Interval(**value))] for name, value in figures["topical_chat"].items()
    ]
    estimate = Interval(**agreement["reward model, mean of the ratings"])
    return render_card(
        "reward_model",
        "reward",
        figures=[Measured("Spearman with held-out session ratings", "spearmanr", estimate)],
        measured_on={"type": "chitchat", "name": "Chit-Chat, held-out conversations"},
        metadata={"license": "apache-2.0", "language": "en", "base_model": DEFAULT_BACKBONE},
        training_data=(
            f"{figures['sessions']['train']:,} sessions of Chit-Chat (Myers, Etchart and Fulda 2020; MIT), small talk "
            "that students typed and rated from 1 to 10 as witty, upbeat and interesting; both speakers as assistant, "
            "untouched forms left out. Who of the two rated is not recorded. Reactions without a camera (the delay of "
            "the answer, laughter, thanks and others) are signals, each trusted as far as the ratings bear it out. "
            "Which answers don't fit was learned from turns of these conversations and of Topical-Chat "
            "(Gopalakrishnan et al., Interspeech 2019; Community Data License Agreement, Sharing 1.0, which leaves "
            "what is learned unrestricted), parts `valid_freq` and `valid_rare`, against made ones: turns of other "
            "conversations, shuffled words, echoes and repetitions. Dismissals and templates, which the table has "
            "too, were never made for training."
        ),
        rating="the mean of witty, upbeat and interesting, 1 to 10; each of the three has rewards of its own.",
        held_out=(
            f"{figures['sessions']['test']:,} held-out sessions of Chit-Chat, a contrast set of "
            f"{sum(figures['contrast']['dialogues'].values())} dialogues, and {SESSIONS} sessions of Topical-Chat "
            "(`test_freq`), whose turns people rated"
        ),
        figures_table=aligned_table(["", "with 95 % interval"], rows),
        made=figures["made"],
        recipe=(
            "The folder holds the head alone, and the digest of its backbone, all-MiniLM-L6-v2, with which it is "
            "joined when it is loaded; `save_pretrained` and a push write the whole model."
        ),
    )


if __name__ == "__main__":
    main()
