"""`geli score SESSIONS --model MODEL`, with reactions and without."""

import io
import json
import math
import os
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


@pytest.fixture
def standard_input(monkeypatch):
    """Put lines into standard input."""

    def put(*lines: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))

    return put


def read(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_json_lines_have_a_reward_for_every_turn(geli, file, checkpoint, scored):
    rows = read(geli("score", file(*SESSIONS), "--model", checkpoint))
    assert [row.get("session_id") for row in rows] == ["walk", "rain", None]
    assert [len(row["turn_rewards"]) for row in rows] == [3, 3, 1]
    for row, expected in zip(rows, scored):
        assert row["turn_rewards"] == pytest.approx(expected["turn_rewards"], abs=1e-6)
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)
        # As the configuration of the model says: mean of the rewards, in the units of the ratings.
        assert row["score"] == pytest.approx(5 + 2 * sum(row["turn_rewards"]) / len(row["turn_rewards"]), abs=1e-5)
        assert row["cropped"] is False


def test_standard_input(geli, checkpoint, scored, standard_input):
    standard_input(*map(json.dumps, SESSIONS[:2]), "", json.dumps(SESSIONS[2]))
    rows = read(geli("score", "-", "--model", checkpoint))
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in scored], abs=1e-5)


def test_limit_and_batch_size(geli, file, checkpoint, scored):
    rows = read(geli("score", file(*SESSIONS), "--model", checkpoint, "--limit", "2", "--batch-size", "1"))
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in scored[:2]], abs=1e-5)


def test_a_file_is_read_as_it_is_scored(file, checkpoint, capsys):
    """However long it is, no more than a batch of it is in memory; and what is good before a bad line is scored."""
    path = file(*[SESSIONS[0]] * 5, "no JSON")
    with pytest.raises(SystemExit, match="line 6: no JSON"):
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
        words = " ".join(" ".join(line[18:] for line in lines).split())
        for message in session["messages"]:
            assert " ".join(message["content"].split()) in words
        rated = f", rated {session['score']:g}" if "score" in session else ""
        assert lines[-1].strip() == f"predicted score {expected['score']:.1f} ± 1.3{rated}"


def test_a_table_shows_the_percentile_of_a_reward(geli, file, tmp_path):
    model = reward_model("bert", reward_quantiles=[-1.0, 0.0, 1.0, 2.0])
    model.score.out.weight.data.zero_()
    model.score.out.bias.data.fill_(0.5)  # every turn has this reward; half of the quantiles are below it
    model.save_pretrained(tmp_path / "model")
    drawn = geli("score", file(SESSIONS[2]), "--model", str(tmp_path / "model"), "--format", "table")
    assert "(+0.50, better than 50% of turns)" in drawn
    assert "     │██    agent " in drawn  # 0.5 of 1.0, the second largest quantile: two and a half squares


# ------------------------------------------------------------------------------------------------ with reactions

REACTIONS = [
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


def test_an_attribution_gives_the_parts_of_every_turn(geli, file, attribution, explainer):
    rows = explained(geli, file(*REACTIONS), "--model", explainer)
    assert [row.get("session_id") for row in rows] == ["walk", "rain", None]
    for row, session, whole in zip(rows, REACTIONS, attribution.score_sessions(REACTIONS)):
        parts = row["parts"]
        assert list(parts) == ["turn", "reaction", "feedback.smile", "feedback.gaze"]
        for name, values in whole["parts"].items():
            assert parts[name] == pytest.approx(values, abs=1e-5)
        assert row["turn_rewards"] == pytest.approx([sum(each) for each in zip(*parts.values())], abs=1e-9)
        smiles = session.get("feedback", {}).get("smile", [None] * len(parts["turn"]))
        expected = [0.0 if smile is None else 0.3 * (smile - 0.5) / 0.25 for smile in smiles]
        assert parts["feedback.smile"] == pytest.approx(expected)
    assert [row["parts"]["reaction"][-1] != 0 for row in rows] == [True, True, False]  # the last word is the agent's


def test_null_signals_count_as_zero(geli, file, explainer):
    null = [session | {"feedback": {"smile": [None] * 3}} for session in REACTIONS[:2]]
    rows = explained(geli, file(*null), "--model", explainer)
    bare = explained(geli, file(*SESSIONS[:2]), "--model", explainer)
    assert rows == bare
    assert rows[0]["parts"]["feedback.smile"] == [0, 0, 0]


def test_reactions_from_standard_input_and_from_a_corpus(geli, explainer, tmp_path, monkeypatch, standard_input):
    monkeypatch.setenv("GELI_HF_CACHE", str(tmp_path / "cache"))
    standard_input(*map(json.dumps, REACTIONS))
    piped = explained(geli, "-", "--model", explainer, "--limit", "2", "--batch-size", "1")
    smiles = [[0.7, math.nan, 0.1], [0.2, 0.9, math.nan]]
    rows = [{"rater_id": ""} | row | {"feedback": {"smile": s}} for row, s in zip(SESSIONS, smiles)]
    Dataset.from_list(rows, features=session_features(["smile"])).to_parquet(str(tmp_path / "corpus.parquet"))
    stored = explained(geli, str(tmp_path / "corpus.parquet"), "--model", explainer)
    assert len(piped) == len(stored) == 2
    for one, other in zip(piped, stored):
        assert one["turn_rewards"] == pytest.approx(other["turn_rewards"], abs=1e-5)


def test_a_file_is_read_as_it_is_explained(file, explainer, capsys):
    path = file(*[REACTIONS[0]] * 5, REACTIONS[0] | {"feedback": {"smile": [1]}})
    problem = "line 6, field 'feedback.smile': expected one value per assistant turn, that is 3, found 1"
    with pytest.raises(SystemExit, match=problem):
        main(["score", path, "--model", explainer, "--with-reactions", "--batch-size", "2"])
    assert len(read(capsys.readouterr().out)) == 4


def test_a_warning_comes_once_for_all_batches(geli, file, explainer, caplog):
    long = {"messages": talk(4, words=80)}
    options = ("--model", explainer, "--batch-size", "1")
    explained(geli, file(long, SESSIONS[0] | {"feedback": {"tone": [1, 2, 3]}}, long), *options)
    absent = "no session has feedback 'smile', so turns were explained without it"
    cropped = (
        "2 of 3 sessions are longer than the model's context of 64 tokens: "
        "some turns were rewarded without the beginning."
    )
    assert caplog.messages == [cropped, absent]


def test_no_warning_if_one_session_has_the_signal(geli, file, explainer, caplog):
    explained(geli, file(SESSIONS[0], SESSIONS[1], REACTIONS[0]), "--model", explainer, "--batch-size", "1")
    assert caplog.messages == []


def test_a_table_shows_the_parts_of_each_turn(geli, file, attribution, explainer):
    drawn = geli("score", file(*REACTIONS), "--model", explainer, "--with-reactions", "--format", "table").split(
        "\n\n"
    )
    for text, session, row in zip(drawn, REACTIONS, attribution.score_sessions(REACTIONS), strict=False):
        shown = re.findall(r"\(([^()]+=[^()]+)\)", " ".join(text.split()))
        expected = []
        for reward, *values in zip(row["turn_rewards"], *row["parts"].values()):
            parts = ", ".join(f"{name} {value:+.2f}" for name, value in zip(row["parts"], values) if value)
            expected.append(f"{reward:+.2f} = {parts}")
        assert shown == expected
        rated = f", rated {session['score']:g}" if "score" in session else ""
        assert text.splitlines()[-1].strip() == f"explained score {row['score']:.1f}{rated}"


def test_the_model_has_to_fit_the_option(problem, file, checkpoint, explainer):
    path = file(*REACTIONS)
    assert f"--model: {checkpoint} is a reward" in problem("score", path, "--model", checkpoint, "--with-reactions")
    assert f"--model: {explainer} is an attribution" in problem("score", path, "--model", explainer)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((SESSIONS[0], "", '{"messages": ['), "{path}, line 3: no JSON"),
        ((SESSIONS[0], {"session_id": "x"}), "{path}, line 2, field 'messages': expected"),
        ((SESSIONS[0], [1, 2]), "{path}, line 2: expected a JSON object"),
        (({"messages": talk(1)},), "{path}, line 1, field 'messages': no message of the assistant"),
        (
            (SESSIONS[0] | {"score": "4/5"},),
            "{path}, line 1, field 'score': expected a finite number or null, found '4/5'",
        ),
        ((SESSIONS[0] | {"score": 10**400},), "{path}, line 1, field 'score': expected a finite number"),
        (
            ({"messages": [{"role": "user", "content": [{"type": "image"}]}]},),
            "{path}, line 1, field 'messages': message 0",
        ),
        (("",), "{path}: no session in it"),
    ],
)
def test_a_line_that_is_no_session_is_named(problem, file, checkpoint, lines, message):
    path = file(*lines)
    assert problem("score", path, "--model", checkpoint).startswith("geli score: " + message.format(path=path))


def test_files_that_are_no_sessions(problem, checkpoint, tmp_path, standard_input):
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "latin.jsonl, line 1: no JSON" in problem("score", f"{tmp_path}/latin.jsonl", "--model", checkpoint)
    assert f"'{tmp_path}/none.jsonl'" in problem("score", f"{tmp_path}/none.jsonl", "--model", checkpoint)
    assert "'none'" in problem("score", "none", "--model", checkpoint)
    assert "data_dir: " in problem("score", "candor", "--model", checkpoint)
    standard_input("hello")
    assert "standard input, line 1: no JSON" in problem("score", "-", "--model", checkpoint)


def test_an_adapter_is_to_be_merged(problem, file, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    message = problem("score", file(*SESSIONS), "--model", f"{tmp_path}/adapter")
    assert f"{tmp_path}/adapter: found an adapter" in message
    assert "merge_and_unload" in message
    with pytest.raises(OSError, match="found an adapter"):
        GeliRewardModel.from_pretrained(tmp_path / "adapter")


def test_models_that_are_no_reward_model(problem, file, tmp_path):
    path, bert = file(*SESSIONS), backbone("bert")
    for name in (f"{tmp_path}/none", "./none", "none", "nobody/none", bert, str(tmp_path)):
        message = problem("score", path, "--model", name)
        assert message.startswith("geli score: --model: ")
        assert name in message


@pytest.mark.parametrize("flag", ["--limit", "--batch-size"])
@pytest.mark.parametrize("value", ["0", "-1", "all"])
def test_a_count_is_positive(geli, file, flag, value, capsys):
    with pytest.raises(SystemExit) as caught:
        geli("score", file(*SESSIONS), "--model", "any", flag, value)
    assert caught.value.code == 2
    assert f"argument {flag}: expected a number from 1, found '{value}'" in capsys.readouterr().err


def test_a_failing_process_explains_itself(file):
    """A shell gets a status other than 0, one line on standard error and nothing on standard output."""
    path = file("no JSON")
    command = [sys.executable, "-m", "geli_hf.cli", "score", path, "--model", "any"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"geli score: {path}, line 1: no JSON")


def test_help_imports_nothing_heavy():
    code = "import sys, geli_hf.cli; print({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_streams_are_utf_8_in_any_locale(file, checkpoint, encoding):
    """In and out, with the byte-order mark that some shells write before what they pipe."""
    messages = [{"role": "user", "content": "你"}, {"role": "assistant", "content": "好"}]
    given = "\ufeff" + json.dumps({"session_id": "你好 😀", "messages": messages}, ensure_ascii=False)
    command = [sys.executable, "-m", "geli_hf.cli", "score", "-", "--model", checkpoint]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "HF_HUB_OFFLINE": "1"}
    for form in ("jsonl", "table"):
        done = subprocess.run([*command, "--format", form], input=given.encode(), capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        assert "你好 😀" in done.stdout.decode("utf-8")
