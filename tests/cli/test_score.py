"""`geli score SESSIONS --model MODEL`, with reactions and without, to the last line of its output."""

import io
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from tiny import backbone, reward_model, talk

from geli_hf import GeliRewardModel
from geli_hf.cli import main
from geli_hf.models.attribution import HindsightAttribution, SignalTrust
from geli_hf.sessions import session_features

# One begins with the agent, one is a single exchange, one has no name.
SESSIONS = [
    {"session_id": "walk", "conversation_id": "1", "messages": talk(7), "score": 6.0},
    {"session_id": "rain", "conversation_id": "2", "messages": talk(6, first="assistant"), "score": 4.0},
    {"messages": talk(2)},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A model that predicts scores around 5 and knows how far off it is."""
    folder = tmp_path_factory.mktemp("reward_model")
    calibration = {
        "score_mean": 5.0,
        "score_std": 2.0,
        "residual_std": 1.26,
        "reward_quantiles": [-2.0, -0.1, 0.1, 2.0],
    }
    reward_model("bert", **calibration).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def scored(checkpoint) -> list[dict]:
    return GeliRewardModel.from_pretrained(checkpoint).score_sessions(SESSIONS)


@pytest.fixture
def file(tmp_path):
    """Write lines, texts or rows, and get the path of the file."""

    def write(*lines, name: str = "sessions.jsonl") -> str:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.fixture
def geli(capsys):
    """Run the command and get what it printed; a failure is an exit with a message."""

    def run(*argv: str) -> str:
        capsys.readouterr()
        main(list(argv))
        return capsys.readouterr().out

    return run


@pytest.fixture
def problem(geli):
    """Run a command that can't succeed and get its message, with which the process ends in status 1."""

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as caught:
            geli(*argv)
        assert isinstance(caught.value.code, str)  # Python prints it to standard error and exits with 1
        return caught.value.code

    return run


def read(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_json_lines_have_a_reward_for_every_assistant_turn(geli, file, checkpoint, scored):
    rows = read(geli("score", file(*SESSIONS), "--model", checkpoint))
    assert [row.get("session_id") for row in rows] == ["walk", "rain", None]
    assert [len(row["turn_rewards"]) for row in rows] == [3, 3, 1]
    for row, expected in zip(rows, scored):
        assert row["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-6)
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)
        # As the configuration of the model says: mean of the rewards, in the units of the ratings.
        assert row["score"] == pytest.approx(5 + 2 * sum(row["turn_rewards"]) / len(row["turn_rewards"]), abs=1e-5)
        assert row["cropped"] is False


def test_standard_input(geli, checkpoint, scored, monkeypatch):
    lines = "\n\n".join(map(json.dumps, SESSIONS))  # empty lines are nothing
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    rows = read(geli("score", "-", "--model", checkpoint))
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in scored], abs=1e-5)


def test_limit_and_batch_size(geli, file, checkpoint, scored):
    rows = read(geli("score", file(*SESSIONS), "--model", checkpoint, "--limit", "2", "--batch-size", "1"))
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in scored[:2]], abs=1e-5)


def test_a_file_is_read_as_it_is_scored(file, checkpoint, capsys):
    """However long it is, no more than a batch of it is in memory; and what is good before a bad line is scored."""
    path = file(*[SESSIONS[0]] * 5, "no JSON")
    with pytest.raises(SystemExit, match="line 6: not JSON"):
        main(["score", path, "--model", checkpoint, "--batch-size", "2"])
    assert len(read(capsys.readouterr().out)) == 4


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_corpus(geli, file, checkpoint, scored, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    if kind == "folder":
        (tmp_path / "corpus").mkdir()
        file(*SESSIONS[:2], name="corpus/part.jsonl")
        corpus = tmp_path / "corpus"
    else:
        corpus = tmp_path / "corpus.parquet"
        rows = [{"rater_id": ""} | row for row in SESSIONS[:2]]
        Dataset.from_list(rows, features=session_features()).to_parquet(str(corpus))
    rows = read(geli("score", str(corpus), "--model", checkpoint, "--limit", "1"))
    assert len(rows) == 1
    assert rows[0]["session_id"] == "walk"
    assert rows[0]["turn_rewards"] == pytest.approx(scored[0]["turn_rewards"], abs=1e-6)


def test_a_table_draws_a_bar_for_every_reward(geli, file, checkpoint, scored):
    drawn = geli("score", file(*SESSIONS), "--model", checkpoint, "--format", "table").split("\n\n")
    drawn = [text for text in drawn if text.strip()]
    assert len(drawn) == len(SESSIONS)
    for text, session, expected in zip(drawn, SESSIONS, scored):
        title, *lines = text.splitlines()
        assert title.startswith(f"── {session.get('session_id', 'session')} ──")
        # The longest bar of a session has five squares, and the others are in proportion. 0.1, the outermost of the
        # model's quantiles but the first and last, is what five squares are worth if all rewards are smaller.
        most = max(0.1, *map(abs, expected["turn_rewards"]))
        agent = [line for line in lines if line[11:18] == " agent "]
        assert len(agent) == len(expected["turn_rewards"])
        for line, reward in zip(agent, expected["turn_rewards"]):
            length = round(5 * abs(reward) / most)
            left, right = line[:11].split("│")
            assert left == (" " * (5 - length) + "▒" * length if reward < 0 else " " * 5)
            assert right == ("█" * length + " " * (5 - length) if reward > 0 else " " * 5)
        assert [
            float(x) for x in re.findall(r"\(([+-]\d+\.\d\d), better than \d+% of turns\)", text)
        ] == pytest.approx(expected["turn_rewards"], abs=0.00501)
        said = " ".join(" ".join(line[18:] for line in lines).split())
        for message in session["messages"]:
            assert " ".join(message["content"].split()) in said
        rated = f", rated {session['score']:g}" if "score" in session else ""
        assert lines[-1].strip() == f"predicted score {expected['score']:.1f} ± 1.3{rated}"


def test_a_reward_between_the_quantiles_of_training_knows_its_place(geli, file, tmp_path):
    model = reward_model("bert", reward_quantiles=[-1.0, 0.0, 1.0, 2.0])
    model.score.out.weight.data.zero_()
    model.score.out.bias.data.fill_(0.5)  # every turn has this reward; half of the quantiles are below it
    model.save_pretrained(tmp_path / "model")
    drawn = geli("score", file(SESSIONS[2]), "--model", str(tmp_path / "model"), "--format", "table")
    assert "(+0.50, better than 50% of turns)" in drawn
    assert "     │██    agent " in drawn  # 0.5 of 1.0, the second largest quantile: two and a half squares


# ------------------------------------------------------------------------------------------------ with reactions

FELT = [
    SESSIONS[0] | {"feedback": {"smile": [0.7, None, 0.1], "voice": None}},  # the last turn of "rain" has no answer:
    SESSIONS[1] | {"feedback": {"smile": [0.2, 0.9, None]}},
    SESSIONS[2],
]


@pytest.fixture(scope="module")
def attribution(tmp_path_factory) -> HindsightAttribution:
    draw = np.random.default_rng(0)
    model = reward_model("bert", context_messages=1, score_mean=5.0, score_std=2.0)
    trusted = {"mean": 0.5, "std": 0.25, "slope": 0.4, "t": 3.0, "observed": 0.8}
    signals = {"smile": SignalTrust(beta=0.3, **trusted), "gaze": SignalTrust(beta=0.0, **trusted)}
    return HindsightAttribution(model, draw.normal(size=32), draw.normal(size=32), signals)


@pytest.fixture(scope="module")
def explainer(attribution, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("attribution")
    attribution.save_pretrained(folder)
    return str(folder)


def explained(geli, *argv: str) -> list[dict]:
    return read(geli("score", *argv, "--with-reactions"))


def test_an_attribution_says_the_parts_of_every_turn(geli, file, attribution, explainer):
    rows = explained(geli, file(*FELT), "--model", explainer)
    assert [row.get("session_id") for row in rows] == ["walk", "rain", None]
    for row, session, whole in zip(rows, FELT, attribution.score_sessions(FELT)):
        parts = row["parts"]
        assert list(parts) == ["turn", "reaction", "feedback.smile", "feedback.gaze"]
        for name, values in whole["parts"].items():
            assert parts[name] == pytest.approx(values, abs=1e-5)
        assert row["turn_rewards"] == pytest.approx([sum(each) for each in zip(*parts.values())], abs=1e-9)
        smiles = session.get("feedback", {}).get("smile", [None] * len(parts["turn"]))
        expected = [0.0 if smile is None else 0.3 * (smile - 0.5) / 0.25 for smile in smiles]
        assert parts["feedback.smile"] == pytest.approx(expected)
    assert [row["parts"]["reaction"][-1] != 0 for row in rows] == [True, True, False]  # the last word is the agent's


def test_signals_that_are_null_count_nothing(geli, file, explainer):
    null = [session | {"feedback": {"smile": [None] * 3}} for session in FELT[:2]]
    rows = explained(geli, file(*null), "--model", explainer)
    bare = explained(geli, file(*SESSIONS[:2]), "--model", explainer)
    assert rows == bare
    assert rows[0]["parts"]["feedback.smile"] == [0, 0, 0]


def test_reactions_are_read_from_standard_input_and_from_a_corpus(geli, explainer, tmp_path, monkeypatch):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, FELT))))
    piped = explained(geli, "-", "--model", explainer, "--limit", "2", "--batch-size", "1")
    smiles = [[0.7, math.nan, 0.1], [0.2, 0.9, math.nan]]
    rows = [{"rater_id": ""} | row | {"feedback": {"smile": s}} for row, s in zip(SESSIONS, smiles)]
    Dataset.from_list(rows, features=session_features(["smile"])).to_parquet(str(tmp_path / "corpus.parquet"))
    stored = explained(geli, str(tmp_path / "corpus.parquet"), "--model", explainer)
    assert len(piped) == len(stored) == 2
    for one, other in zip(piped, stored):
        assert one["turn_rewards"] == pytest.approx(other["turn_rewards"], abs=1e-5)


def test_a_file_is_read_as_it_is_explained(file, explainer, capsys):
    path = file(*[FELT[0]] * 5, FELT[0] | {"feedback": {"smile": [1]}})
    problem = "line 6, field 'feedback.smile': expected one value per assistant turn, that is 3, found 1"
    with pytest.raises(SystemExit, match=problem):
        main(["score", path, "--model", explainer, "--with-reactions", "--batch-size", "2"])
    assert len(read(capsys.readouterr().out)) == 4


def test_a_warning_is_said_once_however_many_batches_there_are(geli, file, explainer, caplog):
    long = {"messages": talk(4, words=80)}
    options = ("--model", explainer, "--batch-size", "1")
    explained(geli, file(long, SESSIONS[0] | {"feedback": {"tone": [1, 2, 3]}}, long), *options)
    absent = "no session has feedback 'smile', so turns were explained without it (they carry tone)"
    cropped = (
        "2 of 3 sessions are longer than the model's context of 64 tokens: "
        "some turns were rewarded without the beginning."
    )
    assert caplog.messages == [cropped, absent]


def test_a_signal_that_some_session_has_is_not_missed(geli, file, explainer, caplog):
    explained(geli, file(SESSIONS[0], SESSIONS[1], FELT[0]), "--model", explainer, "--batch-size", "1")
    assert caplog.messages == []


def test_a_table_shows_what_each_turn_is_the_sum_of(geli, file, attribution, explainer):
    drawn = geli("score", file(*FELT), "--model", explainer, "--with-reactions", "--format", "table").split("\n\n")
    for text, session, row in zip(drawn, FELT, attribution.score_sessions(FELT), strict=False):
        shown = re.findall(r"\(([^()]+=[^()]+)\)", " ".join(text.split()))
        expected = []
        for reward, *values in zip(row["turn_rewards"], *row["parts"].values()):
            parts = ", ".join(f"{name} {value:+.2f}" for name, value in zip(row["parts"], values) if value)
            expected.append(f"{reward:+.2f} = {parts}")
        assert shown == expected
        rated = f", rated {session['score']:g}" if "score" in session else ""
        assert text.splitlines()[-1].strip() == f"explained score {row['score']:.1f}{rated}"


def test_a_reward_model_sees_no_reaction(problem, file, checkpoint):
    message = problem("score", file(*FELT), "--model", checkpoint, "--with-reactions")
    assert message.startswith(f"geli score: --with-reactions: {checkpoint} is a reward model, which sees no reaction.")
    assert "fit_hindsight(...).attribution.save_pretrained(FOLDER)" in message


def test_an_attribution_without_reactions_is_no_reward_model(problem, file, explainer):
    message = problem("score", file(*FELT), "--model", explainer)
    assert message.startswith(f"geli score: --model: {explainer} is an attribution: ")
    assert "Add --with-reactions; or" in message
    assert "fit_hindsight(...).reward_model.save_pretrained" in message


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_a_line_that_is_no_json(problem, file, checkpoint):
    path = file(SESSIONS[0], "", '{"messages": [')
    message = problem("score", path, "--model", checkpoint)
    assert message.startswith(f"geli score: {path}, line 3: not JSON (Expecting value at column ")


def test_standard_input_that_is_no_json(problem, checkpoint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert problem("score", "-", "--model", checkpoint).startswith("geli score: standard input, line 1: not JSON")


@pytest.mark.parametrize("line", [{"session_id": "x"}, [1, 2], "3"])
def test_a_row_without_messages(problem, file, checkpoint, line):
    path = file(SESSIONS[0], line)
    message = problem("score", path, "--model", checkpoint)
    assert message.startswith(f"geli score: {path}, line 2: expected an object with `messages`, found ")


def test_messages_without_a_turn_to_reward(problem, file, checkpoint):
    path = file({"messages": talk(1)})
    message = problem("score", path, "--model", checkpoint)
    assert message.startswith(f"geli score: {path}, line 1, field 'messages': no message of the assistant")


def test_a_file_that_is_not_there(problem, checkpoint, tmp_path):
    assert f"'{tmp_path}/none.jsonl'" in problem("score", f"{tmp_path}/none.jsonl", "--model", checkpoint)
    assert "no file or folder 'none'" in problem("score", "none", "--model", checkpoint)


def test_a_file_without_sessions(problem, file, checkpoint, tmp_path):
    path = file("")
    assert problem("score", path, "--model", checkpoint) == f"geli score: {path}: no session in it"
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n")
    path = f"{tmp_path}/picture.png"
    message = f"geli score: {path}: not text in UTF-8 (invalid start byte at byte 0)"
    assert problem("score", path, "--model", checkpoint) == message


def test_a_model_that_is_not_there(problem, file, tmp_path):
    path = file(*SESSIONS)
    for name in (f"{tmp_path}/none", "./none"):
        assert problem("score", path, "--model", name) == f"geli score: --model: there is no folder {name}"
    for name in ("none", "nobody/none"):
        assert problem("score", path, "--model", name).startswith(f"geli score: --model: no reward model '{name}', ")


def test_a_model_that_is_no_reward_model(problem, file, tmp_path):
    message = "geli score: --model: {} is no reward model of geli_hf (its type is {})"
    path, bert = file(*SESSIONS), backbone("bert")
    assert problem("score", path, "--model", bert) == message.format(bert, "'bert'")
    assert problem("score", path, "--model", str(tmp_path)) == message.format(tmp_path, None)


def test_a_corpus_that_needs_a_folder(problem, checkpoint):
    assert problem("score", "candor", "--model", checkpoint).startswith("geli score: data_dir: say where candor lies")


@pytest.mark.parametrize("flag", ["--limit", "--batch-size"])
@pytest.mark.parametrize("value", ["0", "-1", "all"])
def test_a_number_that_makes_no_sense(geli, file, flag, value, capsys):
    with pytest.raises(SystemExit) as caught:
        geli("score", file(*SESSIONS), "--model", "any", flag, value)
    assert caught.value.code == 2
    assert f"argument {flag}: expected a number from 1, found '{value}'" in capsys.readouterr().err


def test_the_process_fails_and_says_why(file):
    """As a shell sees it: a status other than 0, one line on standard error, nothing on standard output."""
    path = file("no JSON")
    command = [sys.executable, "-m", "geli_hf.cli", "score", path, "--model", "any"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"geli score: {path}, line 1: not JSON")


def test_a_folder_for_a_file_is_refused(problem, file, checkpoint):
    assert "leave --data-dir out" in problem(
        "score", file(SESSIONS[0]), "--model", checkpoint, "--data-dir", "somewhere"
    )
