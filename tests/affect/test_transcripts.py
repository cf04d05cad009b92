"""Transcripts in all forms, and errors that name the file and the place."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geli_hf.affect.transcripts import read_transcript
from geli_hf.sessions import SessionError

SAID = [
    ("Ann", "I moved to the sea, finally 🌊", 0.0, 2.5),
    ("Ben", 'Why the "sea"?', 2.25, 4.0),
    ("Ben", "Of all places.", 4.5, 3725.125),
]
FORMS = {
    "talk.csv": "Speaker, START,stop,Text\n"
    'Ann,0,2.5,"I moved to the sea, finally 🌊"\n\nBen,0:02.25,"00:00:04,000","Why the ""sea""?"\n'
    "Ben,4.5,1:02:05.125,Of all places.\nAnn,9,9,\n",
    "candor.csv": "turn_id,speaker,start,stop,utterance,n_words\n"
    '0,Ann,0,2.5,"I moved to the sea,\n finally 🌊",7\n1,Ben,2.25,4,"Why the ""sea""?",3\n'
    "2,Ben,4.5,3725.125,Of all places.,3\n",
    "excel.CSV": "text;role;end;start\nI moved to the sea, finally 🌊;Ann;2,5;0\n"
    '"Why the ""sea""?";Ben;4;2,25\nOf all places.;Ben;3725,125;4,5\n',
    "list.json": [{"speaker": who, "text": text, "start": start, "end": stop} for who, text, start, stop in SAID],
    "messages.json": {
        "messages": [{"role": who, "content": text, "start": start, "stop": stop} for who, text, start, stop in SAID]
    },
    "whisperx.json": {
        "segments": [
            {"start": start, "end": stop, "text": f" {text}", "speaker": who, "words": []}
            for who, text, start, stop in SAID
        ],
        "language": "en",
    },
    "names.srt": "1\n00:00:00,000 --> 00:00:02,500\nAnn: I moved to the sea,\nfinally 🌊\n\n"
    '2\n00:00:02,250 --> 00:00:04,000 X1:1 X2:2\n- Ben: <i>Why</i> the "sea"?\n\n'
    "3\n00:00:04,500 --> 01:02:05,125\nOf all places.\n\n4\n01:02:06,000 --> 01:02:07,000\n\n",
    "voices.vtt": "WEBVTT - a talk\nKind: captions\n\nNOTE\nAnn is not Ben\n\nSTYLE\n::cue { color: red }\n\n"
    "00:00.000 --> 00:02.500 align:start\n<v.loud Ann>I moved to the <b>sea</b>, finally 🌊</v>\n\n"
    "second\n00:02.250 --> 00:04.000\n<v Ben>Why the &quot;sea&quot;?\n\n"
    "00:04.500 --> 01:02:05.125\n<00:00:05.000>Of all places.\n",
}


def written(folder, name, content, encoding="utf-8", newline="\n"):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text.replace("\n", newline), encoding=encoding, newline="")
    return folder / name


def read(path):
    return [utterance[:4] for utterance in read_transcript(path).utterances]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("encoding", "newline"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-8", "\r")])
def test_each_form_says_the_same(tmp_path, name, encoding, newline):
    assert read(written(tmp_path, name, FORMS[name], encoding, newline)) == SAID


def test_several_voices_in_a_cue_have_its_times(tmp_path):
    path = written(
        tmp_path,
        "both.vtt",
        "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>No!</v>\n<v Ben>Yes: no?</v>\n\n"
        "00:03.000 --> 00:04.000\nAnn: Well,\nthen.\nBen：好\n\n00:05.000 --> 00:06.000\nAt 10:30, see http://a.b\n",
    )
    assert read(path) == [
        ("Ann", "No!", 1, 2),
        ("Ben", "Yes: no?", 1, 2),
        ("Ann", "Well, then.", 3, 4),
        ("Ben", "好", 3, 4),
        ("Ben", "At 10:30, see http://a.b", 5, 6),
    ]


CUES = "WEBVTT\n\n00:01.000 --> 00:02.000\nAnn: Hi.\n\n00:03.000 --> 00:04.000\n"


@pytest.mark.parametrize(
    ("line", "speaker", "text"),
    [
        ("Ann (she/her): So", "Ann", "So"),
        ("Ann [off]: So", "Ann", "So"),
        ("\u200eAnn\u2069: So", "Ann", "So"),
        ("\ufeff>> Ann: So", "Ann", "So"),
        ("Ben\u00a0Lee: So", "Ben Lee", "So"),
        ("- Ben: So", "Ben", "So"),
        ("SPEAKER_00: So", "SPEAKER_00", "So"),
        ("agent: So", "agent", "So"),
        ("Maria del Carmen Ruiz: So", "Maria del Carmen Ruiz", "So"),
        ("Dr. Ben O'Neil Junior (he/him): So", "Dr. Ben O'Neil Junior", "So"),
        ("I mean: go", "Ann", "I mean: go"),
        ("I told him one thing only: go", "Ann", "I told him one thing only: go"),
        ("It was 10:30", "Ann", "It was 10:30"),
        ("Ben: \U0001f469\u200d\U0001f680 I <3 it, x > y", "Ben", "\U0001f469\u200d\U0001f680 I <3 it, x > y"),
        ("Ben: if a<b or c>d, <not markup>", "Ben", "if a<b or c>d, <not markup>"),
        ("Ben: <i>So</i> <b.loud>it</b> <c.yellow>is</c><br/><00:03.500> {\\an8}&amp; was", "Ben", "So it is & was"),
        ('Ben: <font color="red">So</font> <lang en>it</lang>', "Ben", "So it"),
    ],
)
def test_speakers_and_markup_of_a_line(tmp_path, line, speaker, text):
    assert read(written(tmp_path, "a.vtt", f"{CUES}{line}\n"))[1] == (speaker, text, 3, 4)


@pytest.mark.parametrize("blank", [" ", "\t", ""])
def test_a_line_of_blanks_is_within_a_cue_or_between_two(tmp_path, blank):
    """YouTube begins the text of a cue with one."""
    cue = f"00:01.000 --> 00:02.000 align:start\n{blank}\nAnn: Hi."
    text = f"WEBVTT\n\n{cue}\n{blank}\n00:03.000 --> 00:04.000\nBen: So\n"
    assert read(written(tmp_path, "a.vtt", text)) == [("Ann", "Hi.", 1, 2), ("Ben", "So", 3, 4)]


def test_half_an_emoji_is_replaced(tmp_path):
    entries = [{"speaker": "An\ud83d", "text": "so \ud83d", "start": 0, "stop": 1}]
    assert read(written(tmp_path, "a.json", entries)) == [("An\ufffd", "so \ufffd", 0, 1)]


def test_utterances_come_by_their_start_if_it_is_known(tmp_path):
    rows = "speaker,start,stop,text\nAnn,5,6,five\nBen,1,2,one\nAnn,1,3,one too\n"
    texts = [text for _, text, *_ in read(written(tmp_path, "a.csv", rows))]
    assert texts == ["one", "one too", "five"]
    texts = [text for _, text, *_ in read(written(tmp_path, "b.csv", rows + "Ben,,,unknown\n"))]
    assert texts == ["five", "one", "one too", "unknown"]


def test_unknown_times_and_speakers_stay_so(tmp_path):
    path = written(
        tmp_path, "w.json", {"segments": [{"text": "a", "start": None, "end": 3}, {"text": "b", "start": 4, "end": 5}]}
    )
    first, second = read_transcript(path).utterances
    assert (first.speaker, second.speaker) == ("", "")
    assert math.isnan(first.start)
    assert (first.stop, second.start) == (3, 4)


HEAD = "speaker,start,stop,text\nAnn,0,1,Hi\n"
CUE = "1\n00:00:01,000 --> 00:00:02,000\nAnn: Hi\n\n"
BROKEN = [
    ("a.csv", HEAD + "Ben,5,3,No\n", "line 3"),
    ("a.csv", HEAD + "Ben,soon,3,No\n", "line 3, start: .* 'soon'"),
    ("a.csv", HEAD + "Ben,1:75,3,No\n", "line 3, start: .* '1:75'"),
    ("a.csv", HEAD + "Ben,-1,3,No\n", "line 3, start"),
    ("a.csv", HEAD + "Ben,1,3,No, never\n", "line 3: expected 4 fields"),
    ("a.csv", HEAD + "Ben,1,3\n", "line 3: expected 4 fields"),
    ("a.csv", HEAD + 'Ben,1,3,"No\n\n', "line .*CSV"),
    ("a.csv", "speaker,text\nAnn,Hi\n", "line 1: .* start, stop"),
    ("a.csv", "speaker,start,stop,end,text\n", "line 1: 'stop' and 'end'"),
    ("a.csv", "", "line 1"),
    ("a.csv", "speaker,start,stop,text\nAnn,1,2,\n", "text"),
    ("a.csv", "speaker,start,stop,text\nAnn,,,Hi\nBen,NA,nan,No\n", "no utterance has a start"),
    ("a.json", "[{", "line 1: no JSON"),
    ("a.json", "3", "expected a list"),
    ("a.json", "{}", "messages or segments"),
    ("a.json", "[3]", r"entries\[0\]: .* 3"),
    ("a.json", [{"speaker": 3, "text": "a", "start": 1, "stop": 2}], r"entries\[0\]: expected the speaker as text"),
    ("a.json", [{"speaker": "a", "text": "a", "start": True, "stop": 2}], r"entries\[0\], start: .* True"),
    ("a.json", {"messages": [{"role": "user", "content": "a"}]}, "no utterance has a start"),
    ("a.srt", CUE + "lost\n\n", "cue 2: expected times .* 'lost'"),
    ("a.srt", CUE + "2\n00:00:03,000 --> later\nHi\n", "cue 2: .* 'later'"),
    ("a.srt", CUE + "2\n00:00:03,000 -->\nHi\n", "cue 2: expected times"),
    ("a.srt", CUE.rstrip() + "\n2\n00:00:03,000 --> 00:00:04,000\nHi", "cue 1: times within its text"),
    ("a.vtt", "WEBVTT\n\n00:05.000 --> 00:04.000\nHi\n", "cue 1: stops at 4 s"),
    ("a.vtt", "WEBVTT\n\n", "text"),
    ("a.csv", HEAD + "Ben,1e39,3,No\n", "line 3, start"),
    ("a.csv", HEAD + f"Ben,{'9' * 400},3,No\n", "line 3, start"),
    ("a.json", [{"speaker": "a", "text": "a", "start": 0, "stop": 10**400}], r"entries\[0\], stop"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_broken_entry_is_named(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(SessionError, match=message) as error:
        read_transcript(path)
    assert str(path) in str(error.value)


def test_another_encoding_is_named_with_its_line(tmp_path):
    with pytest.raises(SessionError, match=r"latin\.csv, line 3"):
        read_transcript(written(tmp_path, "latin.csv", HEAD + "Ben,1,2,Möwen\n", encoding="latin-1"))
    with pytest.raises(SessionError, match=r"utf16\.srt, line 1"):
        read_transcript(written(tmp_path, "utf16.srt", CUE, encoding="utf-16"))


def test_another_kind_of_file(tmp_path):
    with pytest.raises(ValueError, match=r"talk\.txt"):
        read_transcript(tmp_path / "talk.txt")
    with pytest.raises(FileNotFoundError):
        read_transcript(tmp_path / "talk.csv")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["a.csv", "a.json", "a.srt", "a.vtt"]),
    st.text(alphabet='ab,;:"\n\r{}[]<>v-0123456789 .\x00\x85', max_size=80) | st.sampled_from(list(FORMS.values())),
    st.integers(0, 60),
)
def test_any_text_is_a_transcript_or_a_clear_error(tmp_path_factory, name, content, cut):
    text = content if isinstance(content, str) else json.dumps(content)
    path = written(tmp_path_factory.getbasetemp(), name, text[: len(text) - cut])
    try:
        utterances = read_transcript(path).utterances
    except SessionError as error:
        utterances = []
        assert str(path) in str(error)  # noqa: PT017
    assert all(each.text and not each.stop < each.start for each in utterances)
