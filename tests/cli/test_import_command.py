"""`geli import`."""

import json

import pytest

from geli_hf import load_sessions
from geli_hf.cli import main

LOG = [
    {
        "messages": [{"role": "user", "content": "I am me@example.com"}, {"role": "assistant", "content": "Hi"}],
        "stars": 4,
    },
    {"messages": [{"role": "customer", "content": "Hm"}, {"role": "assistant", "content": "Yes?"}], "stars": 2},
]


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG), encoding="utf-8")
    return tmp_path


def test_sessions_of_a_log(log, capsys):
    main(["import", "log.jsonl", "-o", "sessions.jsonl", "--score", "stars", "--roles", "customer=user", "--redact"])
    rows = [json.loads(line) for line in (log / "sessions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["score"] for row in rows] == [4, 2]  # and not 4.0000001
    assert [row["messages"][0]["content"] for row in rows] == ["I am [mail]", "Hm"]
    printed = capsys.readouterr()
    assert "2  sessions read" in printed.out
    assert "mail" in printed.out
    assert "Names" in printed.err
    assert load_sessions("sessions.jsonl", cache_dir=log / "cache")["score"][:] == [4, 2]


def test_the_report_names_what_was_skipped(log, capsys):
    main(["import", "log.jsonl", "-o", "sessions.jsonl"])
    assert "log.jsonl, line 2" in capsys.readouterr().out


def test_nothing_is_written_when_it_fails(log, capsys):
    for words in (["--score", "quality"], ["--format", "whatsapp"], ["--scale", "7", "9", "--score", "moons"]):
        with pytest.raises(SystemExit, match="geli import"):
            main(["import", "log.jsonl", "-o", "sessions.jsonl", *words])
    with pytest.raises(SystemExit):
        main(["import", "log.jsonl", "-o", "sessions.jsonl", "--roles", "customer"])
    assert "--roles" in capsys.readouterr().err
    assert sorted(path.name for path in log.iterdir()) == ["log.jsonl"]
