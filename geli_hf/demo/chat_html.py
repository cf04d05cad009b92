"""The chat page as HTML: the conversation with its rewards, their chart, and the predicted rating."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .conversation import ALIGNED, BASE, PERSON, Choice, Conversation, Reply
from .look import HIGHEST, LOWEST, note, panel, plain, predicted_rating, reward_chip, scrollable, side, timeline, turn
from .policies import Models

NAMES = {ALIGNED: "Aligned policy", BASE: "Base policy", PERSON: "Edited", "": "Assistant"}
EMPTY = (
    '<div class="g-empty"><strong>Say something about your day</strong>Each reply gets a reward: how much better or '
    "worse it should make you feel about the conversation than an average one.</div>"
)


def thread(conversation: Conversation, models: Models, typing: Sequence[Reply] = (), *, blind: bool = False) -> str:
    """Return the conversation.

    Args:
        conversation: its turns and the open choice.
        models: give the percentiles of rewards.
        typing: replies that are being written.
        blind: hide their authors.
    """
    parts = []
    rewards, before = iter(conversation.rewards), iter(conversation.before)
    for index, message in enumerate(conversation.turns):
        kind, who, foot = "g-user", "You", ""
        if message.role == "assistant":
            reward = next(rewards, math.nan)
            kind, who = f"g-assistant g-{side(reward)}", NAMES[message.source]
            foot = _chip(models, reward, next(before, math.nan))
            if message.vote:
                preferred = "a tie" if message.vote == "tie" else f"you preferred the {NAMES[message.vote].lower()}"
                who += f" · blind vote: {preferred}"
        if not typing and not conversation.closed:
            foot += _button("edit", index, "Edit", f"Edit message {index + 1}")
        parts.append(turn(kind, who, message.text, foot, index=index))
    if typing:
        cards = [
            turn("g-assistant", _author(place, reply, blind), reply.text, typing=True)
            for place, reply in enumerate(typing)
        ]
        parts.append(f'<div class="g-choice">{"".join(cards)}</div>' if len(cards) > 1 else cards[0])
    elif conversation.choice is not None:
        parts.append(_choice(conversation.choice, models))
    busy = "true" if typing else "false"
    return (
        f'<div class="g-thread" role="log" aria-label="Conversation" aria-busy="{busy}" tabindex="0">'
        f"{''.join(parts) or EMPTY}</div>"
    )


def _button(act: str, index: int, label: str, description: str, main: bool = False) -> str:
    return (
        f'<button type="button" class="g-act{" g-main" if main else ""}" data-act="{act}" data-index="{index}" '
        f'aria-label="{plain(description)}">{label}</button>'
    )


def _chip(models: Models, reward: float, before: float = math.nan) -> str:
    return reward_chip(reward, models.reward.percentile(reward), before)


def _choice(choice: Choice, models: Models) -> str:
    cards = votes = ""
    for place, reply in enumerate(choice.replies):
        # A reward beside a blind reply would reveal which one the reward model likes, and so who wrote it.
        kind, foot = "g-assistant", ""
        if not choice.blind:
            label = f"Go on with the reply of the {NAMES[reply.source].lower()}"
            kind += f" g-{side(reply.reward)}"
            foot = _chip(models, reply.reward) + _button("choose", place, "Go on with this", label, True)
        cards += turn(kind, _author(place, reply, choice.blind), reply.text, foot)
    if choice.blind:
        votes = "".join(
            _button("vote", place, f"{name} is better", f"Reply {name} is better", True)
            for place, name in enumerate("AB")
        )
        votes += _button("vote", -1, "They are alike", "The replies are equally good")
        votes = f'<div class="g-vote" role="group" aria-label="Which reply is better?">{votes}</div>'
    return f'<div class="g-choice">{cards}{votes}</div>'


def _author(place: int, reply: Reply, blind: bool) -> str:
    return f"Reply {'AB'[place]}" if blind else NAMES[reply.source]


def rating(conversation: Conversation, models: Models) -> str:
    """Return the predicted rating of the session with its standard deviation, and the votes."""
    body = '<p class="g-quiet">There is a prediction as soon as there is a reply.</p>'
    if not math.isnan(conversation.score):
        body = predicted_rating(min(max(conversation.score, LOWEST), HIGHEST), models.uncertainty)
    aligned, base, tie = conversation.votes.values()
    if aligned + base + tie:
        body += f'<h2>Blind votes</h2><p class="g-votes">Aligned {aligned} · base {base} · alike {tie}</p>'
    return panel("How you might rate this session", body)


def chart(conversation: Conversation, smiles: Sequence[float] | None = None) -> str:
    """Return the chart of the session: a bar for each reply, and the smile that it met."""
    explanation = "Up: better than a turn of an average session; down: worse. In standard deviations of the ratings."
    if smiles is not None:
        explanation += " The dots are your smile while the reply was on the screen."
    drawn = scrollable(timeline(conversation.rewards, signal=smiles), "Timeline")
    return panel("Rewards, reply by reply", f'{drawn}<p class="g-quiet">{explanation}</p>')


def thanks(key: str, repo: str | None, minutes: float) -> str:
    """Return the note on a session that was collected: where it goes, and the key that deletes it."""
    where = "It is kept in a folder of this server, and is uploaded nowhere."
    if repo:
        where = f"It will be uploaded to a private dataset within {minutes:g} minutes; see the section Your data."
    html = f'<code class="g-key">{plain(key)}</code><br><span class="g-quiet">{where}</span>'
    return note("Thank you: the session was kept. Its key, by which you can delete it: ", html=html)


# By the result of `Collection.delete`.
DELETED = {
    "here": "The session is deleted. It had not been uploaded.",
    "hub": "The session is deleted, and the dataset's history was rewritten without it. What somebody downloaded "
    "before, or a model learned from it, can't be recalled.",
    "unknown": "There is no session of that key here. Was it copied whole, and was the session kept at all?",
}
CONSENT = "Keep this session with my rating, to train reward models. Without this tick nothing is kept."
