"""`geli decompose`, from the command line to its file."""

import json

import pytest
from chat_server import well
from llm_fixtures import decomposer, online, rows, server, sessions  # noqa: F401

from geli_hf import load_sessions
from geli_hf.cli import main
from geli_hf.llm import Endpoint

SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Trying again without the waits of a real server."""
    monkeypatch.setitem(Endpoint.__init__.__kwdefaults__, "backoff", 0.001)


@pytest.fixture
def file(tmp_path, rows):
    path = tmp_path / "sessions.jsonl"
    rows = [{name: value for name, value in row.items() if name != "rater_id"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def geli(capsys):
    """Run the command; what it printed, and its status."""

    def run(*argv: str) -> tuple[str, str, object]:
        capsys.readouterr()
        code: object = 0
        try:
            main(["decompose", *argv])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return printed.out, printed.err, code

    return run


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_get_the_signal(geli, server, file, rows, tmp_path):
    output = tmp_path / "out" / "with_llm.jsonl"
    running = server()
    out, _, code = geli(file, "--model", "m", "--base-url", running.url, "-o", str(output))
    assert code == 0
    assert out.splitlines()[:2] == [f"{output}: llm in `feedback`", "3  sessions decomposed"]
    # The scale is that of the scores, 3 to 8.
    assert "on a scale from 3 to 8" in running.requests[0]["messages"][0]["content"]
    written = read(output)
    assert [row.pop("feedback") for row in written] == [{"llm": [6, 4, 5]}, {"llm": [2, 4]}, {"llm": [8.5]}]
    assert written == rows
    assert load_sessions(output)[1]["feedback"] == {"llm": [2, 4]}


def test_a_failed_session_makes_the_status_1(geli, server, file, tmp_path):
    running = server(answer=lambda body: "{}" if "b asks" in body["messages"][0]["content"] else well(body))
    out, _, code = geli(file, "--model", "m", "--base-url", running.url, "-o", str(tmp_path / "out.jsonl"))
    assert code == 1
    assert "1  failed: values are missing: b " in out
    assert [row["feedback"]["llm"] for row in read(tmp_path / "out.jsonl")] == [[6, 4, 5], [None, None], [8.5]]


def test_a_dry_run_sends_and_writes_nothing(geli, server, file, tmp_path):
    running = server()
    out, _, code = geli(file, "--model", "m", "--base-url", running.url, "--dry-run", "--limit", "2")
    assert code == 0
    assert "2  sessions to decompose\n2  calls, " in out
    assert running.requests == []
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".jsonl"] == ["sessions.jsonl"]


def test_options_reach_the_model(geli, server, file, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    (tmp_path / "mine.txt").write_text("mine, rated once: {score}, {lowest} to {highest}\n{transcript}")
    running = server()
    options = ["--token-env", "MY_KEY", "--prompt", str(tmp_path / "mine.txt"), "--scale", "0", "10", "--name", "q"]
    options += ["--parameters", '{"seed": 7, "temperature": null}', "--window", "2", "--overlap", "1"]
    output = tmp_path / "out.jsonl"
    out, err, code = geli(file, "--model", "m", "--base-url", running.url, *options, "-o", str(output))
    assert code == 0
    assert len(running.requests) == 4  # three turns are two windows
    body = running.requests[0]
    assert body["seed"] == 7
    assert "temperature" not in body
    assert body["messages"][0]["content"].startswith("mine, rated once: ")
    assert ", 0 to 10" in body["messages"][0]["content"]
    assert running.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert list(read(output)[0]["feedback"]) == ["q"]
    assert SECRET not in out + err + output.read_text()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["-o", "x"], "behaviour: "),
        ([], "--output: "),
        (["--dry-run", "--prompt", "none.txt"], "none.txt"),
        (["--dry-run", "--token-env", "MY_KEY"], "--token-env"),
        (["--dry-run", "--parameters", '{"seed": 1}'], "--parameters"),
        (["--dry-run", "--base-url", "localhost"], "base_url: expected a URL"),
        (["--dry-run", "--window", "2", "--overlap", "2"], "window, overlap: "),
    ],
)
def test_invalid_options(geli, file, options, problem):
    out, _, code = geli(file, "--model", "m", "--with-behaviour", *options)
    assert out == ""
    assert code.startswith("geli decompose: ")
    assert problem in code


@pytest.mark.parametrize("value", ["{", "[]"])
@pytest.mark.parametrize("option", ["--parameters", "--options"])
def test_values_that_are_no_json_object(geli, file, option, value):
    _, err, code = geli(file, "--model", "m", "--dry-run", option, value)
    assert code == 2
    assert f"argument {option}: " in err
    assert value in err


def test_an_unknown_model_writes_nothing(geli, server, file, tmp_path):
    running = server(answer=lambda body: 404)
    _, _, code = geli(file, "--model", "m", "--base-url", running.url, "-o", str(tmp_path / "out.jsonl"))
    assert code.startswith(f"geli decompose: {running.url} answers 404")
    assert not (tmp_path / "out.jsonl").exists()
