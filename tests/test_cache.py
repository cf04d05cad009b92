"""A file that exists is complete: writers that fail or are killed leave no file under its name."""

import signal
import subprocess
import sys

import pytest

from geli_hf.cache import atomic_path


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_exists_after_the_block(tmp_path):
    target = tmp_path / "new" / "text.json"
    with atomic_path(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        partial.write_text("all of it")
    assert target.read_text() == "all of it"
    with atomic_path(target) as partial:
        partial.write_text("another")
    assert target.read_text() == "another"
    assert names(target.parent) == ["text.json"]


def test_a_writer_that_fails_leaves_nothing_and_the_old_file_stays(tmp_path):
    (tmp_path / "text.json").write_text("before")

    def fail():
        with atomic_path(tmp_path / "text.json") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "nothing"):
        pass
    assert names(tmp_path) == ["text.json"]
    assert (tmp_path / "text.json").read_text() == "before"


def test_the_first_of_two_writers_of_a_folder_wins(tmp_path):
    with atomic_path(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "a").write_text("mine")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a").write_text("theirs")
    assert names(tmp_path) == ["folder"]
    assert (tmp_path / "folder" / "a").read_text() == "theirs"


def test_the_partial_file_of_a_killed_writer_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    code = "import sys, time; from pathlib import Path; from geli_hf.cache import atomic_path\n"
    code += "with atomic_path(Path(sys.argv[1])) as partial:\n"
    code += "    partial.mkdir(); (partial / 'half').touch(); print('begun', flush=True); time.sleep(60)"
    writers = []
    for name in ("dead", "alive"):
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert writers[-1].stdout.readline() == "begun\n"
    dead, alive = writers
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert len(names(tmp_path)) == 2
        with atomic_path(tmp_path / "other") as partial:
            partial.write_text("whole")
        left = names(tmp_path)
        assert len(left) == 2
        assert left[0].startswith(".alive.")
        assert f".{alive.pid}.partial" in left[0]
        assert left[1] == "other"
    finally:
        alive.kill()
        alive.wait()


def test_the_partial_file_of_another_machine_is_not_touched(tmp_path):
    elsewhere = tmp_path / ".rows.arrow.another-machine.1234567.partial"
    elsewhere.touch()
    with atomic_path(tmp_path / "rows.arrow") as partial:
        partial.touch()
    assert elsewhere.exists()
