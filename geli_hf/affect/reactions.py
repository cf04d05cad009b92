"""Reactions of a listener without a camera: Local Implicit signals from the words and times of any session.

Each signal is a function of a Session row that returns one number per assistant turn, under its name in `REACTIONS`.
Its sign is such that more should be better. It is NaN where nothing was observed, as where nobody answers the turn.
Word lists are English; case, spelling of chat and odd Unicode do not matter. A signal of words counts words, and so it
misleads where people quote, joke or tell of others. Each docstring says how, and ends with the trust in the signal:
its t, and in brackets that of its prediction from the words of the turn, in a regression of the scores of a corpus on
all signals (`fit_hindsight`, `context_messages=1`, seed 0). With |t| < 2 a signal could as well be chance.

What a chat product records beside the words (`thumbs`, `regenerated`, `edited`, `copied`) comes from `event_values`.
"""

from __future__ import annotations

import importlib.util
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache

from datasets import Dataset, Features, List, Value

from ..sessions import Message, Session, SessionError, assistant_turns, feedback_names
from .sentiment import NextTurnSentiment

VERSION = 1  # part of the name under which `datasets` caches signals: raise it when one gives other values
SHORTEST_DELAY = 1.0  # seconds: many logs know no finer times, and people who interrupt are at least as fast
FEWEST_WORDS = 3  # of a message that can be asked again: everybody says "yes" twice


def _any_of(*words: str, marks: str | None = None) -> re.Pattern[str]:
    """Compile patterns for plain text (see `_plain`): of whole words, and of single marks anywhere."""
    patterns = [rf"(?<!\w)(?:{pattern})(?!\w)" for pattern in words]
    return re.compile("|".join([*patterns, f"[{marks}]"] if marks else patterns))


_GOOD = "good|great|nice|excellent|awesome|amazing|perfect|brilliant|fantastic|wonderful|cool|helpful"
_IT, _YOU_ARE = r"(?:this|that|it)(?:'s| is| was)", r"(?:you're|you are|ur|u r)"
_SO = "(?:so |very |really |just |super |too )?"
_UNDENIED = r"(?<!\bno )(?<!\bnot )(?<!n't )(?<!\bnot a )(?<!n't a )"

LAUGHTER = _any_of(
    r"[abmw]{0,3}(?:h+a+){2,}h*|(?:h+e+){2,}h*",  # haha, ahaha, mwahahah, hehe
    r"lo+l+(?:o+l+)*[sz]*|lmf?ao+|rot?fl|x+d+",
    marks="😂🤣😆😹",
)
THANKS = _any_of(
    rf"{_UNDENIED}(?:thanks*|thank ?(?:you|u)|thanx+|thn?x+|tnx|thansk|thnaks|tysm|ty|much appreciated)(?! god)",
    rf"{_UNDENIED}(?:{_GOOD}) (?:job|work|point|question|idea|answer|suggestion|advice|tip|one|to know)",
    rf"(?:that|this)(?:'s| is| sounds) {_SO}(?:{_GOOD})",
    rf"{_YOU_ARE} {_SO}(?:{_GOOD}|kind|sweet|funny|the best)",
    r"well (?:done|said|put)",
)
COMPLAINT = _any_of(
    rf"{_IT}(?:n't| not) {_SO}(?:right|correct|true|helpful)|not what i (?:asked|wanted|meant|said|need)",
    rf"{_IT} {_SO}(?:wrong|incorrect|useless|ridiculous|annoying|frustrating)|makes? no sense|wtf",
    rf"{_YOU_ARE} {_SO}(?:wrong|mistaken|rude|useless|confusing|annoying|not (?:listening|helping|making sense))",
    r"you (?:didn't|don't|did not|do not|never) (?:understand|listen|answer|read)",
    r"(?:i|you) (?:already|just) (?:told|said|answered|asked)|(?:no|sorry|actually),? i (?:meant|said|asked|wanted)",
    r"(?:doesn't|does not|didn't|did not) (?:help|work|answer|make (?:any )?sense)",
    r"stop (?:saying|asking|repeating|telling)|what are you (?:talking|saying|on) about",
)
QUESTION = _any_of(r"(?:what|how) about (?:you|u|yourself)|hbu|wbu|hby|how (?:are|r) (?:you|u)", marks="?؟")
GOODBYE = _any_of(
    r"(?:good ?)?bye+|cya|ttyl|gtg|g2g|farewell|take care(?! of)",
    r"(?:see|talk to) (?:you|ya|u) (?:later|soon|around|then|tomorrow)",
    r"(?:got|gotta|have|need) (?:to )?(?:go|run|leave)(?: now)?(?=[.,!]|$)",
    r"(?<!\ba )good ?night(?!')|(?:nice|great|good|lovely) (?:talking|chatting)",
    r"(?<!you )have a (?:good|great|nice|lovely|wonderful) (?:day|night|evening|one|weekend|rest)",
)
_LINK = re.compile(r"\b(?:https?://|www\.)\S+")
_WORD = re.compile(r"\w+(?:'\w+)*")

# Values of what people do with a turn in a chat product: kind of event, and value, by the event's name.
EVENTS = {
    "thumbs_up": ("thumbs", 1.0),
    "thumbs_down": ("thumbs", -1.0),
    "regenerated": ("regenerated", -1.0),
    "edited": ("edited", -1.0),
    "copied": ("copied", 1.0),
}


def reply_delay(row: Session) -> list[float]:
    """Signal: minus the logarithm of the seconds from the `stop` of the turn to the `start` of the answer.

    An answer within `SHORTEST_DELAY`, or before the turn has stopped, counts as that fast. NaN without both times.

    Misleads: a long turn takes time to read, and a long answer time to type; who goes for a coffee is not bored.

    Trust: t = 3.9 (0.7) on Chit-Chat, and nothing is left of it where the length of the session is accounted for.
    """
    turns, messages = assistant_turns(row["messages"]), row["messages"]
    start, stop = row.get("start"), row.get("stop")
    if start is None or stop is None:
        return [math.nan] * len(turns)
    delays = [_number(start[turn + 1]) - _number(stop[turn]) for turn in turns if turn + 1 < len(messages)]
    delays += [math.nan] * (len(turns) - len(delays))  # only the last turn can lack an answer
    return [-math.log(max(delay, SHORTEST_DELAY)) if math.isfinite(delay) else math.nan for delay in delays]


def answer_length(row: Session) -> list[float]:
    """Signal: the logarithm of the answer's words, less its mean over the listener's answers in the session.

    Misleads: a complaint can be long, and a question of the turn asks for words. Its mean over a session is 0, so the
    scores cannot bear out the signal itself, but only what the words of the turn predict of it.

    Trust: t = 0.0 (-0.8) on Chit-Chat, 0.0 (6.7) on Topical-Chat, 0.0 (1.0) on MWOZ, 0.0 (1.1) on CCPE.
    """
    lengths = _per_answer(row, lambda text: math.log(max(1, len(text.split()))))
    known = [length for length in lengths if not math.isnan(length)]
    return [length - sum(known) / len(known) if known else math.nan for length in lengths]


def laughter(row: Session) -> list[float]:
    """Signal: 1 if the answer laughs, as in "haha", "lol" or 😂; else 0.

    Misleads: people laugh at a turn, or from embarrassment, as well as with it, and some end every message with "lol".

    Trust: t = 0.7 (8.1) on Chit-Chat, -3.5 (0.5) on Topical-Chat, 0.0 (0.0) on MWOZ, 1.3 (-0.8) on CCPE.
    """
    return _found(row, LAUGHTER, 1.0)


def thanks(row: Session) -> list[float]:
    """Signal: 1 if the answer thanks, or praises what was said; else 0.

    Misleads: thanks are politeness, most of all at the end; "that's great" may praise something in the world.

    Trust: t = 0.3 (4.8) on Chit-Chat, 2.8 (1.3) on Topical-Chat, 1.2 (4.0) on MWOZ, 1.9 (-1.4) on CCPE.
    """
    return _found(row, THANKS, 1.0)


def complaint(row: Session) -> list[float]:
    """Signal: -1 if the answer complains of the turn or corrects it; else 0.

    Misleads: "it doesn't work" is a complaint of the turn, or of the washing machine that the talk is about.

    Trust: t = 0.3 (-0.5) on Chit-Chat, 1.5 (0.2) on Topical-Chat, 1.1 (-1.2) on MWOZ, -0.3 (-1.6) on CCPE.
    """
    return _found(row, COMPLAINT, -1.0)


def question(row: Session) -> list[float]:
    """Signal: 1 if the answer asks something; else 0.

    Misleads: in small talk a question back is interest; to an assistant it is the next need, or that the turn was
    not understood.

    Trust: t = -3.5 (-3.5) on Chit-Chat, 1.9 (3.7) on Topical-Chat, -1.4 (-1.9) on MWOZ, -1.4 (-0.3) on CCPE.
    """
    return _found(row, QUESTION, 1.0)


def asked_again(row: Session) -> list[float]:
    """Signal: minus the overlap of the answer's words with those of the listener's message before the turn.

        -|words(answer) & words(before)| / |words(answer) | words(before)|

    It is 0 for an answer of fewer than `FEWEST_WORDS` different words, and NaN where the listener had said nothing.

    Misleads: who orders one thing after the other uses the same words, and is not asking again.

    Trust: t = -1.3 (-6.3) on Chit-Chat, -0.7 (5.0) on Topical-Chat, 1.2 (2.5) on MWOZ, 1.0 (0.3) on CCPE.
    """
    messages, overlaps = row["messages"], []
    for turn in assistant_turns(messages):
        if turn == 0 or turn + 1 == len(messages):
            overlaps.append(math.nan)
            continue
        before, answer = _words(messages[turn - 1]), _words(messages[turn + 1])
        overlap = len(before & answer) / max(1, len(before | answer))
        overlaps.append(-overlap if len(answer) >= FEWEST_WORDS else 0.0)
    return overlaps


def leaving(row: Session) -> list[float]:
    """Signal: -1 if the answer says goodbye, or no answer follows; 0 if the listener goes on.

    That no answer follows is what is observed here, so it is never NaN. A session has about one such turn: it weighs
    more in the mean of a short session.

    Misleads: every session ends, good ones too; and where a log was cut, or ends by rule, nobody has left. The trust
    is that of a session's length on Chit-Chat, and of polite goodbyes on Topical-Chat.

    Trust: t = 10.6 (-1.9) on Chit-Chat, -7.8 (-4.3) on Topical-Chat, 2.0 (0.4) on MWOZ, -0.1 (-2.4) on CCPE.
    """
    return [-1.0 if math.isnan(bye) else bye for bye in _found(row, GOODBYE, -1.0)]


def sentiment(row: Session) -> list[float]:
    """Signal: the sentiment of the answer, from -1 to 1, by VADER; see [`NextTurnSentiment`].

    Misleads: it is about whatever the answer is about, so a sad story that is told with trust is negative.

    Trust: t = -1.1 (0.0) on Chit-Chat, 2.3 (-3.2) on Topical-Chat, 5.0 (-1.5) on MWOZ, 4.5 (1.6) on CCPE.

    Raises:
        ImportError: without the package vaderSentiment.
    """
    return _vader()(row["messages"])


REACTIONS: dict[str, Callable[[Session], list[float]]] = {
    "reply_delay": reply_delay,
    "answer_length": answer_length,
    "laughter": laughter,
    "thanks": thanks,
    "complaint": complaint,
    "question": question,
    "asked_again": asked_again,
    "leaving": leaving,
    "sentiment": sentiment,
}


def event_values(events: Iterable[str], recorded: Collection[str]) -> dict[str, float]:
    """Turn what a chat product recorded of one turn into values of signals.

    `thumbs` is 1 or -1, by the last one given; `copied` is 1; `regenerated` (the user asked for another turn in its
    place) and `edited` (the user rewrote it) are -1.

    Misleads: few people ever press a thumb, and they differ from the rest; what was regenerated is not the turn that
    stands in the log afterwards; people also copy what they want to mock, and edit what they like.

    Args:
        events: names in `EVENTS`, in the order of time.
        recorded: the kinds of events that the log records: "thumbs", "regenerated", "edited", "copied".

    Returns:
        A value per kind: 0 where it is recorded and nothing happened, NaN where the log does not record it.

    Raises:
        ValueError: there is no such event or kind, or an event is of a kind that the log does not record.
    """
    kinds = dict.fromkeys(kind for kind, _ in EVENTS.values())
    if unknown := set(recorded) - set(kinds):
        raise ValueError(f"recorded: expected some of {', '.join(kinds)}, found {', '.join(sorted(unknown))}")
    values = {kind: 0.0 if kind in recorded else math.nan for kind in kinds}
    for event in events:
        if event not in EVENTS:
            raise ValueError(f"events: expected some of {', '.join(EVENTS)}, found {event!r}")
        kind, value = EVENTS[event]
        if kind not in recorded:
            raise ValueError(f"events: found {event!r}, but {kind!r} is not in recorded; add it there")
        values[kind] = value
    return values


def reactions_of(row: Session, names: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Compute signals of one session.

    Args:
        row: a Session row; `messages`, `start` and `stop` are read.
        names: in `REACTIONS`. Default: all that the row can carry: `reply_delay` needs times, and `sentiment` the
            package vaderSentiment.

    Returns:
        Under each name one value per assistant turn, NaN where nothing was observed.

    Raises:
        ImportError: `sentiment` is named without the package vaderSentiment.
        ValueError: there is no such signal.
    """
    return {name: REACTIONS[name](row) for name in (_possible(row) if names is None else _known(names))}


def add_reactions(sessions: Dataset, names: Sequence[str] | None = None) -> Dataset:
    """Return the sessions with these signals in `feedback`, for training to find.

    Args:
        sessions: Session rows.
        names: in `REACTIONS`. Default: all that the rows can carry (see [`reactions_of`]) and do not carry yet.

    Raises:
        ImportError: `sentiment` is named without the package vaderSentiment.
        SessionError: the sessions have a signal of that name already, or they lack the times for `reply_delay`.
        ValueError: there is no such signal.
    """
    have, possible = feedback_names(sessions), _possible(sessions.column_names)
    names = [name for name in possible if name not in have] if names is None else _known(names)
    if twice := [name for name in names if name in have]:
        raise SessionError(f"names: the sessions have a signal {twice[0]!r} already; leave it out, or name none")
    if "reply_delay" in names and "reply_delay" not in possible:
        raise SessionError("names: 'reply_delay' needs the columns 'start' and 'stop', which the sessions do not have")
    if not names:
        return sessions

    def with_reactions(row: Session, version: int) -> Session:  # `datasets` caches by the version too
        return {"feedback": (row.get("feedback") or {}) | reactions_of(row, names)}

    feedback = dict(sessions.features.get("feedback") or {}) | {name: List(Value("float32")) for name in names}
    features = Features(dict(sessions.features) | {"feedback": feedback})
    about = {"fn_kwargs": {"version": VERSION}, "desc": "Adding reactions"}
    return sessions.map(with_reactions, features=features, **about)


def _known(names: Sequence[str]) -> list[str]:
    """Check names of signals, and leave out what is named twice."""
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in REACTIONS]:
        raise ValueError(f"names: expected some of {', '.join(REACTIONS)}, found {unknown[0]!r}")
    return names


def _possible(columns: Collection[str]) -> list[str]:
    """List the signals that rows with these columns can carry, with the packages that are installed."""
    absent = set() if {"start", "stop"} <= set(columns) else {"reply_delay"}
    if importlib.util.find_spec("vaderSentiment") is None:
        absent.add("sentiment")
    return [name for name in REACTIONS if name not in absent]


def _per_answer(row: Session, value: Callable[[str], float]) -> list[float]:
    """Compute a value of the plain text of the answer to each assistant turn, NaN where there is none."""
    messages = row["messages"]
    return [
        value(_plain(messages[turn + 1]["content"])) if turn + 1 < len(messages) else math.nan
        for turn in assistant_turns(messages)
    ]


def _found(row: Session, pattern: re.Pattern[str], value: float) -> list[float]:
    """Return, for each assistant turn, the value if the answer has the pattern, else 0; NaN without an answer."""
    return _per_answer(row, lambda text: value if pattern.search(text) else 0.0)


def _plain(text: str) -> str:
    """Return text in small plain letters, with straight apostrophes, single spaces, and no links."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_LINK.sub("", text.replace("\u2019", "'")).split())


def _words(message: Message) -> set[str]:
    return set(_WORD.findall(_plain(message["content"])))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


@cache
def _vader() -> NextTurnSentiment:
    return NextTurnSentiment()
