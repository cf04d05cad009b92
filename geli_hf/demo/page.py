"""The chat as HTML: the conversation with its rewards, and what they amount to. What anybody wrote stays text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .conversation import ALIGNED, BASE, PERSON, Choice, Conversation, Reply, Turn
from .look import gauge, plain, reward_chip, side, signed, timeline
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
    """The conversation.

    Args:
        typing: replies that are being written.
        blind: their authors are not to be told.
        place: the turn that is being written anew; below the rest if None.
    """
    parts = []
    rewards, before = iter(conversation.rewards), iter(conversation.before)
    can_change = not typing and not conversation.closed
    for index, turn in enumerate(conversation.turns):
        if turn.role == "user":
            parts.append(_person(index, turn, can_change))
            continue
        reward, was = next(rewards, math.nan), next(before, math.nan)
        if typing and index == place:
            parts.append(_typing(typing, blind))
        else:
            parts.append(_assistant(index, turn, reward, was, models, can_change))
    if typing and place is None:
        parts.append(_typing(typing, blind))
    elif conversation.choice is not None:
        parts.append(_choice(conversation.choice, models))
    if not parts:
        parts.append(_empty())
    busy = "true" if typing else "false"
    return (
        f'<div class="g-thread" role="log" aria-label="Conversation" aria-busy="{busy}" tabindex="0">'
        f"{''.join(parts)}</div>"
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


def _act(act: str, index: int, label: str, told: str, main: bool = False) -> str:
    return (
        f'<button type="button" class="g-act{" g-main" if main else ""}" data-act="{act}" data-index="{index}" '
        f'aria-label="{plain(told)}">{label}</button>'
    )


def _person(index: int, turn: Turn, can_change: bool) -> str:
    act = _act("edit", index, "Edit", f"Edit message {index + 1}") if can_change else ""
    return (
        f'<div class="g-turn g-user"><div class="g-who">You</div><div class="g-text" data-text="{index}">'
        f'{plain(turn.text)}</div><div class="g-foot">{act}</div></div>'
    )


def _assistant(index: int, turn: Turn, reward: float, was: float, models: Models, can_change: bool) -> str:
    acts = other = ""
    if can_change:
        acts = _act("edit", index, "Edit", f"Edit message {index + 1}")
        acts += _act("again", index, "Regenerate", f"Regenerate message {index + 1}")
    for reply in turn.instead_of:
        other += (
            f'<details class="g-other"><summary>Not chosen: {NAMES[reply.source].lower()}, {signed(reply.reward)}'
            f"</summary><p>{plain(reply.text)}</p></details>"
        )
    who = NAMES[turn.source]
    if turn.vote:
        preferred = "a tie" if turn.vote == "tie" else f"you preferred the {NAMES[turn.vote].lower()}"
        who += f" · blind vote: {preferred}"
    return (
        f'<div class="g-turn g-assistant g-{side(reward)}"><div class="g-who">{who}</div>'
        f'<div class="g-text" data-text="{index}">{plain(turn.text)}</div>'
        f'<div class="g-foot">{reward_chip(reward, models.reward.percentile(reward), was)}{acts}</div>{other}</div>'
    )


def _typing(replies: Sequence[Reply], blind: bool) -> str:
    cards = "".join(
        f'<div class="g-turn g-assistant"><div class="g-who">{_name(place, reply, blind)}</div>'
        f'<div class="g-text g-typing">{plain(reply.text)}</div></div>'
        for place, reply in enumerate(replies)
    )
    return f'<div class="g-choice">{cards}</div>' if len(replies) > 1 else cards


def _choice(choice: Choice, models: Models) -> str:
    cards = votes = ""
    for place, reply in enumerate(choice.replies):
        # A reward beside a blind reply would tell which one the reward model likes, and so who wrote it.
        foot = "" if choice.blind else reward_chip(reply.reward, models.reward.percentile(reply.reward))
        if not choice.blind:
            foot += _act(
                "choose", place, "Go on with this", f"Go on with the reply of the {NAMES[reply.source].lower()}", True
            )
        cards += (
            f'<div class="g-turn g-assistant{"" if choice.blind else f" g-{side(reply.reward)}"}">'
            f'<div class="g-who">{_name(place, reply, choice.blind)}</div>'
            f'<div class="g-text">{plain(reply.text)}</div><div class="g-foot">{foot}</div></div>'
        )
    if choice.blind:
        votes = "".join(
            _act("vote", place, f"{'AB'[place]} is better", f"Reply {'AB'[place]} is better", True) for place in (0, 1)
        )
        votes = f'<div class="g-vote" role="group" aria-label="Which reply is better?">{votes}'
        votes += _act("vote", -1, "They are alike", "The replies are equally good") + "</div>"
    return f'<div class="g-choice">{cards}{votes}</div>'


def _name(place: int, reply: Reply, blind: bool) -> str:
    return f"Reply {'AB'[place]}" if blind else NAMES[reply.source]


def rating(conversation: Conversation, models: Models) -> str:
    """What the rewards amount to: the predicted rating of the session, and how far off it may be."""
    deviation, value = models.uncertainty, math.nan
    if math.isnan(conversation.score):
        told = '<p class="g-quiet">There is a prediction as soon as there is a reply.</p>'
    else:
        value = min(max(conversation.score, LOWEST), HIGHEST)
        told = f'<p class="g-rating" data-score="{value:.3f}">{value:.1f} <small>of {HIGHEST:g}</small></p>'
    if not math.isnan(value) and not math.isnan(deviation):
        low, high = max(LOWEST, value - deviation), min(HIGHEST, value + deviation)
        told += (
            f'<p class="g-quiet">Give or take {deviation:.1f}: from {low:.1f} to {high:.1f}.</p>'
            '<details class="g-other"><summary>What that means</summary><p>It is one standard deviation of what the '
            "ratings of held-out sessions differed from their predictions. Those were whole sessions like the ones "
            "that the model was trained on; yours may be further off, above all while it is short.</p></details>"
        )
    aligned, base, tie = conversation.votes.values()
    votes = ""
    if aligned + base + tie:
        votes = f'<h2>Blind votes</h2><p class="g-votes">Aligned {aligned} · base {base} · alike {tie}</p>'
    return (
        f'<section class="g-panel" aria-label="Predicted rating"><h2>How you might rate this session</h2>{told}'
        f"{gauge(value, deviation, LOWEST, HIGHEST)}{votes}</section>"
    )


def chart(conversation: Conversation, smiles: Sequence[float] | None = None) -> str:
    """The session's timeline: a bar for each reply, and how much of a smile was seen while it was on the screen."""
    labels = [f"reply {number + 1}" for number in range(len(conversation.rewards))]
    note = "Up: better than a turn of an average session; down: worse. In standard deviations of the ratings."
    if smiles is not None:
        note += " The dots are your smile while the reply was on the screen."
    drawn = timeline(conversation.rewards, labels=labels, signal=smiles)
    return (
        '<section class="g-panel" aria-label="Rewards of the session"><h2>Rewards, reply by reply</h2>'
        f'<div class="g-scroll" tabindex="0" aria-label="Timeline">{drawn}</div>'
        f'<p class="g-quiet">{note}</p></section>'
    )


def meter(smile: float) -> str:
    """How much of a smile is seen now; NaN where no face is."""
    if math.isnan(smile):
        return '<div class="g-quiet" role="status">No face in the picture. Nothing is recorded while that is so.</div>'
    share = 100 * smile
    return (
        f'<div class="g-quiet" role="status" data-smile="{smile:.3f}">Smile: {share:.0f} %</div><div class="g-meter" '
        f'role="meter" aria-label="Smile" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}">'
        f'<div style="width:{share:.0f}%"></div></div>'
    )


def thanks(conversation: Conversation, repo: str | None, minutes: float) -> str:
    """What stands there when a session is closed."""
    if not conversation.closed:
        return ""
    if not conversation.collected:
        return '<div class="g-note" role="status">Thank you. Nothing was kept, as you did not ask for it.</div>'
    if repo:
        where = (
            f"It will be uploaded to a private dataset within {minutes:g} minutes. You can delete it before that, and "
            "after it too, as far as the section <em>Your data</em> says."
        )
    else:
        where = "It is kept in a folder of this server, and is uploaded nowhere."
    return (
        '<div class="g-note" role="status">Thank you: the session was kept. Its key, by which you can delete it: '
        f'<code class="g-key">{plain(conversation.key)}</code><br><span class="g-quiet">{where}</span></div>'
    )


def deleted(found: str) -> str:
    """What became of a session that somebody wanted to be deleted, as `Collection.delete` says."""
    told = {
        "here": "The session is deleted. It had not been uploaded.",
        "hub": "The session is deleted, and the dataset's history was rewritten without it. What somebody downloaded "
        "before, or a model learned from it, can't be recalled.",
        "unknown": "There is no session of that key here. Was it copied whole, and was the session kept at all?",
    }
    return f'<div class="g-note" role="status">{told[found]}</div>'


HEAD = (
    '<header class="g-head"><h1>Chat with a reward for every turn</h1><p>A small policy talks with you. A reward '
    "model, which has learned from ratings of whole sessions and from smiles, says what each of its turns is worth."
    "</p></header>"
)
CONSENT = "Keep this session with my rating, to train reward models. Without this tick nothing is kept."
ABOUT_CAMERA = (
    '<p class="g-quiet">While you chat, a classifier looks at your face twice a second and keeps one number: how '
    "probable a smile is. Each frame is looked at in memory and forgotten; no picture is kept or sent on. A smile is "
    "not a feeling, and the classifier is less sure of faces from the side, in the dark or behind glasses. If you "
    "keep the session, one number for each reply goes with it.</p>"
)
ABOUT_DATA = (
    '<p class="g-quiet">A conversation lives in this tab, and in the memory of this server until an hour after it '
    "is closed. It is written down only if you rate it with the tick at <em>Keep this session</em>: what was said, "
    "your rating and, if your camera was on, a number for the smile at each reply. No name, address or picture. With "
    "its key you can delete it. If it was uploaded before, the dataset is rewritten and its history squashed. Copies "
    "that others made, and models that were trained on it, can't be recalled.</p>"
)
ABOUT = (
    '<p class="g-quiet">What the rewards are: the reward model predicts how a simulated person would rate the '
    "session. The models that come with the package are tiny and know small talk about everyday things and little "
    "else, so expect charm rather than sense. A reward judges a turn by what was said up to it; it is no judgement "
    "about you.</p>"
)
