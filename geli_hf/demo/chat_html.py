"""The chat page as HTML: the conversation with its rewards, their chart, and the predicted rating."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .conversation import ALIGNED, BASE, PERSON, Choice, Conversation, Reply, Turn
from .look import gauge, meter, note, panel, percent, plain, reward_chip, scrollable, side, signed, timeline, turn
from .policies import Models

NAMES = {ALIGNED: "Aligned policy", BASE: "Base policy", PERSON: "Edited", "": "Assistant"}
LOWEST, HIGHEST = 1.0, 9.0  # of a rating
STARTERS = (
    "Hi! I went hiking with my sister last weekend.",
    "Hello, my coach dropped me from the team, and I feel awful.",
    "I finally passed my driving test!",
)


def thread(
    conversation: Conversation,
    models: Models,
    typing: Sequence[Reply] = (),
    *,
    blind: bool = False,
    place: int | None = None,
) -> str:
    """Return the conversation.

    Args:
        conversation: its turns and the open choice.
        models: give the percentiles of rewards.
        typing: replies that are being written.
        blind: hide their authors.
        place: the turn that is being replaced; by default the replies follow the last turn.
    """
    parts = []
    rewards, before = iter(conversation.rewards), iter(conversation.before)
    can_change = not typing and not conversation.closed
    for index, message in enumerate(conversation.turns):
        if message.role == "user":
            button = _button("edit", index, "Edit", f"Edit message {index + 1}") if can_change else ""
            parts.append(turn("g-user", "You", message.text, button, index=index))
            continue
        reward, was = next(rewards, math.nan), next(before, math.nan)
        if typing and index == place:
            parts.append(_typing(typing, blind))
        else:
            parts.append(_assistant(index, message, _chip(models, reward, was), side(reward), can_change))
    if typing and place is None:
        parts.append(_typing(typing, blind))
    elif conversation.choice is not None:
        parts.append(_choice(conversation.choice, models))
    busy = "true" if typing else "false"
    return (
        f'<div class="g-thread" role="log" aria-label="Conversation" aria-busy="{busy}" tabindex="0">'
        f"{''.join(parts) or _empty()}</div>"
    )


def _empty() -> str:
    starters = "".join(
        f'<button type="button" class="g-act" data-act="start" data-index="{index}">{plain(text)}</button>'
        for index, text in enumerate(STARTERS)
    )
    return (
        '<div class="g-empty"><strong>Say something about your day</strong>Each reply gets a reward: how much better '
        "or worse it should make you feel about the conversation than an average one."
        f'<div class="g-starters">{starters}</div></div>'
    )


def _button(act: str, index: int, label: str, description: str, main: bool = False) -> str:
    return (
        f'<button type="button" class="g-act{" g-main" if main else ""}" data-act="{act}" data-index="{index}" '
        f'aria-label="{plain(description)}">{label}</button>'
    )


def _chip(models: Models, reward: float, before: float = math.nan) -> str:
    return reward_chip(reward, models.reward.percentile(reward), before)


def _assistant(index: int, message: Turn, chip: str, kind: str, can_change: bool) -> str:
    buttons = ""
    if can_change:
        buttons = _button("edit", index, "Edit", f"Edit message {index + 1}")
        buttons += _button("again", index, "Regenerate", f"Regenerate message {index + 1}")
    alternatives = "".join(
        f'<details class="g-other"><summary>Not chosen: {NAMES[reply.source].lower()}, {signed(reply.reward)}'
        f"</summary><p>{plain(reply.text)}</p></details>"
        for reply in message.alternatives
    )
    who = NAMES[message.source]
    if message.vote:
        preferred = "a tie" if message.vote == "tie" else f"you preferred the {NAMES[message.vote].lower()}"
        who += f" · blind vote: {preferred}"
    return turn(f"g-assistant g-{kind}", who, message.text, chip + buttons, below=alternatives, index=index)


def _typing(replies: Sequence[Reply], blind: bool) -> str:
    cards = "".join(
        turn("g-assistant", _author(place, reply, blind), reply.text, typing=True)
        for place, reply in enumerate(replies)
    )
    return f'<div class="g-choice">{cards}</div>' if len(replies) > 1 else cards


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
    deviation, value = models.uncertainty, math.nan
    if math.isnan(conversation.score):
        body = '<p class="g-quiet">There is a prediction as soon as there is a reply.</p>'
    else:
        value = min(max(conversation.score, LOWEST), HIGHEST)
        body = f'<p class="g-rating" data-score="{value:.3f}">{value:.1f} <small>of {HIGHEST:g}</small></p>'
    if not math.isnan(value) and not math.isnan(deviation):
        low, high = max(LOWEST, value - deviation), min(HIGHEST, value + deviation)
        body += (
            f'<p class="g-quiet">Give or take {deviation:.1f}: from {low:.1f} to {high:.1f}.</p>'
            '<details class="g-other"><summary>What that means</summary><p>It is one standard deviation of what the '
            "ratings of held-out sessions differed from their predictions. Those were whole sessions like the ones "
            "that the model was trained on; yours may be further off, above all while it is short.</p></details>"
        )
    body += gauge(value, deviation, LOWEST, HIGHEST)
    aligned, base, tie = conversation.votes.values()
    if aligned + base + tie:
        body += f'<h2>Blind votes</h2><p class="g-votes">Aligned {aligned} · base {base} · alike {tie}</p>'
    return panel("How you might rate this session", body, ' aria-label="Predicted rating"')


def chart(conversation: Conversation, smiles: Sequence[float] | None = None) -> str:
    """Return the chart of the session: a bar for each reply, and the smile that it met."""
    explanation = "Up: better than a turn of an average session; down: worse. In standard deviations of the ratings."
    if smiles is not None:
        explanation += " The dots are your smile while the reply was on the screen."
    drawn = scrollable(timeline(conversation.rewards, signal=smiles), "Timeline")
    body = f'{drawn}<p class="g-quiet">{explanation}</p>'
    return panel("Rewards, reply by reply", body, ' aria-label="Rewards of the session"')


def smile_meter(smile: float) -> str:
    """Return the smile before the camera now; NaN if no face is seen."""
    if math.isnan(smile):
        return '<div class="g-quiet" role="status">No face is seen, so nothing is kept.</div>'
    label = f'<div class="g-quiet" role="status" data-smile="{smile:.3f}">Smile: {percent(smile)}</div>'
    return label + meter(smile, "Smile")


def thanks(conversation: Conversation, repo: str | None, minutes: float) -> str:
    """Return the note on a closed session: if it was collected, where, and the key that deletes it."""
    if not conversation.collected:
        return note("Thank you. Nothing was kept, as you did not ask for it.")
    if repo:
        where = (
            f"It will be uploaded to a private dataset within {minutes:g} minutes. You can delete it before that, and "
            "after it too, as far as the section <em>Your data</em> says."
        )
    else:
        where = "It is kept in a folder of this server, and is uploaded nowhere."
    key = f'<code class="g-key">{plain(conversation.key)}</code><br><span class="g-quiet">{where}</span>'
    return note("Thank you: the session was kept. Its key, by which you can delete it: ", html=key)


# By the result of `Collection.delete`.
DELETED = {
    "here": "The session is deleted. It had not been uploaded.",
    "hub": "The session is deleted, and the dataset's history was rewritten without it. What somebody downloaded "
    "before, or a model learned from it, can't be recalled.",
    "unknown": "There is no session of that key here. Was it copied whole, and was the session kept at all?",
}
CONSENT = "Keep this session with my rating, to train reward models. Without this tick nothing is kept."
