"""The grammar of the sample corpus: an utterance is `lead core tail`, and its core is one act.

The same tables make utterances (`render`) and parse them (`parse`). Leads and tails are worth nothing: they make every
act come in short and long forms, so that the worth of an utterance can't be read from its length. No lead or tail is
an act of its own, so two acts glued together are not an utterance of this grammar. Worth lies in `sample_oracle`.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from geli_hf.data.sample_text import BAD, GOOD, NEUTRAL, TOPICS, VALENCES

SHARE, CHANGE, ONE_UP, ANSWER = "share", "change", "one_up", "answer"
FOLLOW_UP, RECIPROCAL, GENERIC, ASK_ADVICE = "follow_up", "reciprocal", "generic", "ask_advice"
EMPATHY, CONGRATULATION, THANKS, ADVICE = "empathy", "congratulation", "thanks", "advice"
ACKNOWLEDGEMENT, DISMISSAL = "acknowledgement", "dismissal"

STATEMENTS = frozenset({SHARE, CHANGE, ONE_UP, ANSWER})
QUESTIONS = frozenset({FOLLOW_UP, RECIPROCAL, GENERIC, ASK_ADVICE})
ASPECTS = ("state", "history", "plan", "feeling")


class Detail(NamedTuple):
    """A thing, person or occasion in somebody's life; `name` is what follows "my" or "your"."""

    name: str
    topic: str
    kind: str
    plural: bool
    events: dict[str, str]


@dataclass(frozen=True)
class Parse:
    """What an utterance does. `gist` is equal for two utterances of one speaker that say the same thing."""

    act: str
    core: str
    topic: str = ""
    detail: str = ""
    valence: str = NEUTRAL
    aspect: str = ""
    greeting: bool = False

    @property
    def gist(self) -> tuple[str, ...]:
        if self.act in (SHARE, CHANGE, ONE_UP):
            return "event", self.detail, self.valence
        if self.act in (FOLLOW_UP, ANSWER, ASK_ADVICE, RECIPROCAL):
            return self.act, self.topic, self.detail, self.aspect, self.valence
        return self.act, self.core


def _read_details() -> dict[str, Detail]:
    details: dict[str, Detail] = {}
    for topic, lines in TOPICS.items():
        for line in lines.strip().splitlines():
            head, *events = (part.strip() for part in line.split("|"))
            kind, number, _, name = head.split(maxsplit=3)
            details[name] = Detail(name, topic, kind, number == "p", dict(zip(VALENCES, events, strict=True)))
    return details


DETAILS = _read_details()

# ---------------------------------------------------------------------------------------------------------------------
# Cores. {d} is the detail with its owner ("my dog", "your dog"), {is} agrees with it.

_FOLLOW_UP = {
    ("pt", "state"): (
        "how {is} {d} now",
        "how {is} {d} these days",
        "how do things stand with {d} now",
        "{is} everything all right with {d} now",
    ),
    ("e", "state"): (
        "how did {d} turn out in the end",
        "what was the rest of {d} like",
        "did {d} turn out all right in the end",
    ),
    ("pt", "history"): (
        "when did all that with {d} begin",
        "how long {has} {d} been on your mind",
        "how long have you been thinking about {d}",
    ),
    ("e", "history"): (
        "how long had {d} been on your mind before that",
        "how long had you been thinking about {d}",
    ),
    ("pt", "plan"): (
        "what will you do about {d} now",
        "what comes next with {d}",
        "what are your plans with {d} now",
    ),
    ("pte", "feeling"): (
        "how do you feel about {d} now",
        "how did that leave you feeling about {d}",
        "what goes through your mind when you think of {d}",
    ),
}

_SPANS = ("a week", "two weeks", "a month", "two months", "half a year")
_ANSWER = {
    ("pt", "state", GOOD): ("things are going really well with {d} now", "{d} {is} better than ever now"),
    ("pt", "state", BAD): ("{d} {is} still giving me a lot of trouble", "things are still very bad with {d}"),
    ("pt", "state", NEUTRAL): ("{d} {is} much the same as before", "nothing has changed with {d} so far"),
    ("e", "state", GOOD): ("{d} turned out better than I had hoped", "the rest of {d} was a real joy"),
    ("e", "state", BAD): ("{d} turned out even worse than it sounds", "the rest of {d} was just as awful"),
    ("e", "state", NEUTRAL): ("{d} turned out much as usual", "the rest of {d} was nothing special"),
    ("pt", "history", NEUTRAL): tuple(
        frame.replace("{span}", span)
        for frame in (
            "it all began with {d} about {span} ago",
            "{d} {has} been on my mind for {span}",
            "I have been thinking about {d} for {span}",
        )
        for span in _SPANS
    ),
    ("e", "history", NEUTRAL): tuple(
        frame.replace("{span}", span)
        for frame in ("{d} had been on my mind for {span}", "I had been thinking about {d} for {span}")
        for span in _SPANS
    ),
    ("pt", "plan", GOOD): ("I have a lovely plan for {d} and I can't wait", "I'm going to make the most of {d}"),
    ("pt", "plan", BAD): ("I have no idea what to do about {d}", "I'm afraid I'll have to give up on {d}"),
    ("pt", "plan", NEUTRAL): ("I'll wait a little and then decide about {d}", "I'll carry on with {d} as before"),
    ("pte", "feeling", GOOD): ("I feel full of joy when I think of {d}", "I'm so proud when I think of {d}"),
    ("pte", "feeling", BAD): ("I still feel sick when I think of {d}", "I feel rather helpless about {d}"),
    ("pte", "feeling", NEUTRAL): ("I have mixed feelings about {d}", "I don't feel much about {d} either way"),
}

_ABOUT_YOURS = {
    ADVICE: (
        "you should talk to someone who knows about {d}",
        "you ought to give {d} a bit more time",
        "you need to make up your mind about {d}",
        "you should stop thinking about {d} so much",
        "you have to be more patient with {d}",
        "you should try not to rush things with {d}",
    ),
    DISMISSAL: (
        "it's hardly worth talking about {d}",
        "I don't see why {d} should matter to anyone",
        "you make such a fuss about {d}",
        "nobody cares that much about {d}",
    ),
    EMPATHY: (
        "I'm so sorry about {d}",
        "that's awful news about {d}",
        "no wonder you feel low about {d}",
        "it must be hard on you, this thing with {d}",
    ),
    CONGRATULATION: (
        "I'm so happy for you about {d}",
        "that's wonderful news about {d}",
        "I want to congratulate you on {d}",
        "you must be over the moon about {d}",
    ),
}

_ABOUT_MINE = {
    ASK_ADVICE: (
        "what would you do about {d} if you were me",
        "do you have any advice for me about {d}",
        "how would you deal with {d} in my place",
    ),
}

_RECIPROCAL = (
    "what about you, do you have a story about {topic} too",
    "how do you feel about {topic} yourself",
    "does {topic} play a part in your life as well",
    "what has {topic} been like for you",
)

_FIXED = {
    GENERIC: (
        "how has your week been",
        "what's new with you",
        "what have you been up to lately",
        "how is life treating you",
        "what's going on in your life",
        "do you have any news for me",
    ),
    EMPATHY: (
        "I'm so sorry to hear that",
        "that must be really hard for you",
        "that sounds so painful",
        "anyone would be upset about that",
        "that must hurt so much",
        "that's a lot to carry",
    ),
    CONGRATULATION: (
        "I'm so glad to hear that",
        "that's wonderful news",
        "you must be so proud",
        "that's the best thing I have heard all day",
        "I'm really happy for you",
        "it's lovely that it all went so well for you",
    ),
    THANKS: (
        "thank you for saying that",
        "thanks, that means a lot to me",
        "that's very kind of you to say",
        "it helps me to hear that from you",
        "you always find the right words",
        "I'm grateful that you listen to me",
    ),
    DISMISSAL: (
        "that's not such a big deal",
        "that's really not very interesting",
        "I couldn't care less about that",
        "I don't see what all the fuss is about",
        "there is no need to go on about it",
    ),
}

_ACKNOWLEDGEMENTS = (
    ("", "right, ", "okay, ", "sure, ", "yes, "),
    ("I see", "I hear you", "I get it"),
    ("", "that makes sense", "fair enough", "good to know", "I can imagine", "all right then"),
)
_ONE_UP = (
    "that's nothing, ",
    "I can beat that: ",
    "you think that's something, but ",
    "mine is a much bigger story: ",
)
_CHANGE = ("anyway, ", "never mind that, ", "by the way, ", "let's talk about something else: ", "on another note, ")

# ---------------------------------------------------------------------------------------------------------------------
# Leads and tails, as written; they carry the punctuation. Families of acts share them.

GREETINGS = ("Hello, ", "Hi there, ", "Good to see you, ", "Nice to meet you, ")
_LEADS = {
    "question": (
        *("", "So, ", "Oh, ", "So tell me, ", "Can I ask, ", "Wait, ", "I have to ask, ", "Just out of interest, "),
        *("Before I forget to ask, ", "Now that we are talking, ", "There is one thing I'd like to know: "),
    ),
    "share": (
        *("", "Well, ", "You know, ", "Actually, ", "To be honest, ", "At my end, ", "Believe it or not, "),
        *("I don't think I told you, but ", "It may sound odd, but ", "I have been wanting to tell you that "),
    ),
    "answer": (
        *("", "Well, ", "Let me think. ", "Good question. ", "To be honest, ", "Thanks for asking. ", "Oh, "),
        *("Since you ask, ", "If you really want to know, ", "It's nice that you ask. "),
    ),
    "react": (
        *("", "Oh, ", "Well, ", "Honestly, ", "You know what, ", "I have to say, ", "Listen, ", "Look, "),
        *("Really, ", "I must say, ", "All I can say is that ", "Let me just say one thing: "),
        *("I don't quite know how to say it, but ", "I have been thinking about it, and "),
    ),
    "thank": (
        *("", "Oh, ", "Well, ", "Honestly, ", "You know what, ", "I have to say, ", "Before we go on, "),
        *("I don't say this often, but ", "I should have said it before: "),
    ),
    "acknowledge": ("", "Oh, ", "Well, ", "Hm, "),
    "event": ("", "Oh, ", "Well, ", "Honestly, ", "Listen, "),
}

_TAILS = {
    "question": (
        *("?", "? I'd love to know.", "? I'm really curious.", ", if you don't mind me asking?"),
        *(
            "? I'd like to hear a bit more.",
            "? Please don't leave anything out.",
            "? We have all the time in the world.",
        ),
        "? It would be nice to hear it in your own words.",
    ),
    "ask": (
        *("?", "? I really can't decide.", "? I could do with some help.", "? I keep going round in circles."),
        "? You know so much about these things.",
    ),
    "answer": (
        *(".", ", more or less.", ", as far as I can tell.", ". That's how it looks today.", ". It's a long story."),
        ". Let's see what the next few weeks bring.",
    ),
    "empathy": (
        *(".", ", and I mean it.", ". I'm here if you want to talk.", ". Please be kind to yourself."),
        *(". Nobody should have to go through that alone.", ". I wish there was something I could do for you."),
    ),
    "congratulation": (
        *(".", "!", ", and I mean it.", ". You really earned it.", ". It made me smile to hear it."),
        *(". Nobody I know has earned it more than you.", ". I'll be in a good mood for the rest of the day."),
    ),
    "thanks": (
        *(".", ". You are a good friend.", ". I needed that today.", ". Not everyone takes the time to listen."),
        ". It does me good to talk to someone about it.",
    ),
    "dismissal": (
        *(".", ", if I'm honest.", ". I have heard it all before.", ". There are bigger problems in the world."),
        *(", so let's not make a drama of it.", ". It's the same for everyone else and they don't complain."),
    ),
    "advice": (
        *(".", ", believe me.", ". It always works.", ". Anyone will tell you the same.", ". It's the only way."),
        ". I did it like that and never looked back.",
    ),
    "acknowledge": (
        *(".", ", I suppose.", ", if you say so.", ". That's how it goes.", ". That's the way of the world."),
        *(". There isn't much to add to that.", ". I don't really know what else to say about it."),
    ),
}
_TIMES = ("", " yesterday", " this week", " last week", " the other day", " a few days ago", " at the weekend")
_AFTERTHOUGHTS = {
    GOOD: (
        *("", ", and I'm so happy", ", and it made my day", ", and I couldn't be more pleased"),
        ", and I can't stop smiling when I think about it",
    ),
    BAD: (
        *("", ", and I'm so upset", ", and I feel awful", ", and it really got me down"),
        ", and I can't stop worrying when I think about it",
    ),
    NEUTRAL: (
        *("", ", just for a change", ", and that was that", ", and it took quite a while"),
        ", and it was neither very good nor very bad",
    ),
}

_FAMILY = {  # act -> (leads, tails)
    SHARE: ("share", "event"),
    CHANGE: ("event", "event"),
    ONE_UP: ("event", "event"),
    ANSWER: ("answer", "answer"),
    FOLLOW_UP: ("question", "question"),
    RECIPROCAL: ("question", "question"),
    GENERIC: ("question", "question"),
    ASK_ADVICE: ("question", "ask"),
    EMPATHY: ("react", "empathy"),
    CONGRATULATION: ("react", "congratulation"),
    THANKS: ("thank", "thanks"),
    ADVICE: ("react", "advice"),
    DISMISSAL: ("react", "dismissal"),
    ACKNOWLEDGEMENT: ("acknowledge", "acknowledge"),
}
_GREETED = frozenset({SHARE, GENERIC})


def leads(act: str) -> tuple[str, ...]:
    """What may stand before the core of an act, greetings apart."""
    return _LEADS[_FAMILY[act][0]]


@functools.cache
def tails(act: str, valence: str) -> tuple[str, ...]:
    """What may stand after the core of an act; the feeling named after an event is that of the event."""
    family = _FAMILY[act][1]
    if family != "event":
        return _TAILS[family]
    return tuple(f"{time}{after}." for time, after in itertools.product(_TIMES, _AFTERTHOUGHTS[valence]))


def _fill(frame: str, detail: Detail, owner: str) -> str:
    words = {"is": "are", "has": "have"} if detail.plural else {"is": "is", "has": "has"}
    return frame.format(d=f"{owner} {detail.name}", **words)


def _cores() -> Iterator[Parse]:
    for detail in DETAILS.values():
        about = {"topic": detail.topic, "detail": detail.name}
        for valence, event in detail.events.items():
            for act, prefixes in ((SHARE, ("",)), (ONE_UP, _ONE_UP), (CHANGE, _CHANGE)):
                for prefix in prefixes:
                    yield Parse(act, prefix + event, valence=valence, **about)
        for (kinds, aspect), frames in _FOLLOW_UP.items():
            if detail.kind in kinds:
                for frame in frames:
                    yield Parse(FOLLOW_UP, _fill(frame, detail, "your"), aspect=aspect, **about)
        for (kinds, aspect, valence), frames in _ANSWER.items():
            if detail.kind in kinds:
                for frame in frames:
                    yield Parse(ANSWER, _fill(frame, detail, "my"), valence=valence, aspect=aspect, **about)
        for owner, table in (("your", _ABOUT_YOURS), ("my", _ABOUT_MINE)):
            for act, frames in table.items():
                for frame in frames:
                    yield Parse(act, _fill(frame, detail, owner), **about)
    for topic in TOPICS:
        for frame in _RECIPROCAL:
            yield Parse(RECIPROCAL, frame.format(topic=topic), topic=topic)
    for act, cores in _FIXED.items():
        for core in cores:
            yield Parse(act, core)
    for first, second, third in itertools.product(*_ACKNOWLEDGEMENTS):
        yield Parse(ACKNOWLEDGEMENT, f"{first}{second}, {third}" if third else f"{first}{second}")
        if third:
            yield Parse(ACKNOWLEDGEMENT, f"{first}{third}")


_FOREIGN = re.compile(r"[^a-z' ,.?!;:\"()-]")


def normalise(text: str) -> str:
    """Lower-case words with single spaces, no punctuation. "" if there is a character that no word is made of."""
    text = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower().split())
    return "" if _FOREIGN.search(text) else " ".join(re.sub(r"[^a-z']", " ", text).split())


class _Tables(NamedTuple):
    cores: dict[str, Parse]
    leads: dict[str, set[str]]  # -> acts
    tails: dict[str, set[tuple[str, str]]]  # -> (act, valence)
    longest_lead: int
    longest_tail: int


@functools.cache
def _tables() -> _Tables:
    by_core: dict[str, Parse] = {}
    for parse_ in _cores():
        if by_core.setdefault(normalise(parse_.core), parse_) != parse_:
            raise ValueError(
                f"two acts share the core {parse_.core!r}: {parse_} and {by_core[normalise(parse_.core)]}"
            )
    by_lead: dict[str, set[str]] = {}
    by_tail: dict[str, set[tuple[str, str]]] = {}
    for act in _FAMILY:
        for lead in leads(act):
            by_lead.setdefault(normalise(lead), set()).add(act)
        for valence in VALENCES:
            for tail in tails(act, valence):
                by_tail.setdefault(normalise(tail), set()).add((act, valence))
    for greeting in GREETINGS:
        by_lead[normalise(greeting)] = {f"{act} greeting" for act in _GREETED}
    longest_lead, longest_tail = (max(text.count(" ") + 1 for text in table) for table in (by_lead, by_tail))
    return _Tables(by_core, by_lead, by_tail, longest_lead, longest_tail)


@functools.cache
def cores_of(act: str) -> tuple[Parse, ...]:
    """All cores of an act."""
    return tuple(parse_ for parse_ in _tables().cores.values() if parse_.act == act)


def parse(text: str) -> Parse | None:
    """The act of an utterance, or None unless the whole of it can be derived from the grammar."""
    tables, words = _tables(), normalise(text).split()
    count = len(words)
    ends = []
    for end in range(count, max(0, count - tables.longest_tail) - 1, -1):
        allowed = tables.tails.get(" ".join(words[end:]))
        if allowed:
            ends.append((end, allowed))
    for start in range(min(count, tables.longest_lead + 1)):
        acts = tables.leads.get(" ".join(words[:start]))
        if not acts:
            continue
        for end, allowed in ends:
            found = tables.cores.get(" ".join(words[start:end])) if end > start else None
            if found is None or (found.act, found.valence) not in allowed:
                continue
            if found.act in acts:
                return found
            if f"{found.act} greeting" in acts:
                return Parse(found.act, found.core, found.topic, found.detail, found.valence, found.aspect, True)
    return None


def render(lead: str, core: str, tail: str) -> str:
    """An utterance as it is written, with a capital at the start of each sentence."""
    text = lead + core + tail
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
