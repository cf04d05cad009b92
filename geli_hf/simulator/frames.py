"""The sentences of the sample corpus: frames for what an act says, and what may stand before and after it.

Tables only, read by `sample_grammar`. Leads and tails are worth nothing and fit any utterance of their family: they
make every act come in short and long forms, so that the worth of an utterance can't be read from its length. None of
them is an act of its own, so two acts glued together are not an utterance of the grammar.
"""

from __future__ import annotations

from .text import BAD, GOOD, NEUTRAL

SHARE, CHANGE, ONE_UP, ANSWER = "share", "change", "one_up", "answer"
FOLLOW_UP, RECIPROCAL, GENERIC, ASK_ADVICE = "follow_up", "reciprocal", "generic", "ask_advice"
EMPATHY, CONGRATULATION, THANKS, ADVICE = "empathy", "congratulation", "thanks", "advice"
ACKNOWLEDGEMENT, DISMISSAL = "acknowledgement", "dismissal"

STATEMENTS = frozenset({SHARE, CHANGE, ONE_UP, ANSWER})
QUESTIONS = frozenset({FOLLOW_UP, RECIPROCAL, GENERIC, ASK_ADVICE})
ASPECTS = ("state", "history", "plan", "feeling")

# ---------------------------------------------------------------------------------------------------------------------
# Cores. {d} is the detail with its owner ("my dog", "your dog"), {is} agrees with it.

FOLLOW_UP_FRAMES = {
    ("pt", "state"): (
        "how {is} {d} now",
        "how {is} {d} these days",
        "how do things stand with {d} now",
        "is everything all right with {d} now",
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
ANSWER_FRAMES = {
    ("pt", "state", GOOD): ("things are going really well with {d} now", "{d} {is} better than ever now"),
    ("pt", "state", BAD): ("{d} {is} still giving me a lot of trouble", "things are still very bad with {d}"),
    ("pt", "state", NEUTRAL): ("{d} {is} much the same as before", "nothing has changed with {d} so far"),
    ("e", "state", GOOD): ("{d} turned out better than I had hoped", "the rest of {d} was a real joy"),
    ("e", "state", BAD): ("{d} turned out even worse than it sounds", "the rest of {d} was pretty awful"),
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
    ("pt", "plan", BAD): ("I have no idea what to do about {d}", "I'm afraid there is nothing to be done about {d}"),
    ("pt", "plan", NEUTRAL): ("I'll wait a little and then decide about {d}", "I'll carry on with {d} as before"),
    ("pte", "feeling", GOOD): ("I feel full of joy when I think of {d}", "I'm so proud when I think of {d}"),
    ("pte", "feeling", BAD): ("I still feel sick when I think of {d}", "I feel rather helpless about {d}"),
    ("pte", "feeling", NEUTRAL): ("I have mixed feelings about {d}", "I don't feel much about {d} either way"),
}

FRAMES_ABOUT_YOURS = {
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

FRAMES_ABOUT_MINE = {
    ASK_ADVICE: (
        "what would you do about {d} if you were me",
        "do you have any advice for me about {d}",
        "how would you deal with {d} in my place",
    ),
}

RECIPROCAL_FRAMES = (
    "what about you, do you have a story about {topic} too",
    "how do you feel about {topic} yourself",
    "does {topic} play a part in your life as well",
    "what has {topic} been like for you",
)

FIXED_CORES = {
    GENERIC: (
        *(f"how has your {time} been" for time in ("week", "month", "weekend", "day", "summer", "year")),
        *(f"what have you been up to {time}" for time in ("lately", "these days", "this week", "this month")),
        *(f"what's new {where}" for where in ("with you", "in your life", "at your end", "in your part of the world")),
        *(f"how is life treating you {time}" for time in ("these days", "at the moment")),
        *(f"do you have any {kind} for me" for kind in ("news", "good stories", "stories from this week")),
        *(f"what's the {kind} thing that happened to you lately" for kind in ("best", "last", "strangest", "worst")),
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

ACKNOWLEDGEMENT_PARTS = (
    ("", "right, ", "okay, ", "sure, ", "yes, "),
    ("I see", "I hear you", "I get it"),
    ("", "that makes sense", "fair enough", "good to know", "I can imagine", "all right then"),
)
ONE_UP_PREFIXES = (
    "that's nothing, ",
    "I can beat that: ",
    "you think that's something, but ",
    "mine is a much bigger story: ",
)
CHANGE_PREFIXES = (
    "anyway, ",
    "never mind that, ",
    "by the way, ",
    "let's talk about something else: ",
    "on another note, ",
)

# ---------------------------------------------------------------------------------------------------------------------
# Leads and tails, as written; they carry the punctuation. Families of acts share them.

GREETINGS = ("Hello, ", "Hi there, ", "Good to see you, ", "Nice to meet you, ")
WHEN_ASKED = (
    "Good question. ",
    "Thanks for asking. ",
    "Since you ask, ",
    "If you really want to know, ",
    "It's nice that you ask. ",
)
LEADS = {
    "question": (
        *("", "So, ", "Oh, ", "So tell me, ", "Can I ask, ", "Wait, ", "I have to ask, ", "Just out of interest, "),
        *("Before I forget to ask, ", "Now that we are talking, ", "There is one thing I'd like to know: "),
    ),
    "share": (
        *("", "Well, ", "You know, ", "Actually, ", "To be honest, ", "At my end, ", "Believe it or not, "),
        *("I don't think I told you, but ", "It may sound odd, but ", "I have been wanting to tell you that "),
    ),
    "answer": ("", "Well, ", "Let me think. ", "To be honest, ", "Oh, ", "Let me see, ", *WHEN_ASKED),
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

TAILS = {
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
TIMES = ("", " yesterday", " this week", " last week", " the other day", " a few days ago", " at the weekend")
AFTERTHOUGHTS = {
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

FAMILIES = {  # act -> (leads, tails)
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
GREETED = frozenset({SHARE, GENERIC})
