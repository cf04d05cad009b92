"""Settings of a run: a YAML file with one section per dataclass, overridden on the command line."""

from dataclasses import dataclass, field

import pytest
from transformers import TrainingArguments

from geli_hf.settings import SettingsError, build, parse_settings
from geli_hf.training import GeliRewardArguments


@dataclass
class Journey:
    output_dir: str
    days: int = 3
    luggage: float = 7.5
    tent: bool = False
    stages: list[str] = field(default_factory=lambda: ["out", "back"])
    guide: str | None = None


@dataclass
class Boat:
    sails: int = 2
    length: float = 9.0
    paint: dict = field(default_factory=dict)


SECTIONS = {"boat": Boat, "reward": GeliRewardArguments}


@pytest.fixture
def written(tmp_path):
    """Write a YAML file and get its path."""

    def write(text: str, name: str = "run.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def parse(*argv: str) -> dict:
    return parse_settings(argv, Journey, SECTIONS)


def journey(*argv: str) -> tuple[Journey, Boat]:
    settings = parse(*argv)
    return build(Journey, settings[""]), build(Boat, settings["boat"])


def problem(*argv: str) -> str:
    """Message about a command line that can't be parsed, or whose settings don't fit their dataclass."""
    with pytest.raises(SettingsError) as caught:
        journey(*argv)
    return str(caught.value)


def test_a_file_has_settings_of_the_run_at_the_top_and_sections_below(written):
    config = written("output_dir: runs/1\ndays: 4\nboat:\n  sails: 3\n  paint: {hull: red}\n")
    settings = parse("--config", config)
    assert settings == {
        "": {"output_dir": "runs/1", "days": 4},
        "boat": {"sails": 3, "paint": {"hull": "red"}},
        "reward": {},
    }
    assert build(Journey, settings[""]) == Journey("runs/1", days=4)
    assert build(Boat, settings["boat"]) == Boat(sails=3, paint={"hull": "red"})


def test_the_command_line_overrides_the_file_wherever_it_stands(written):
    config = written("output_dir: runs/1\ndays: 4\nboat: {sails: 3, length: 12}\n")
    trip, boat = journey("--days", "5", "--config", config, "--boat.sails=1", "--tent", "--stages", "[out]")
    assert trip == Journey("runs/1", days=5, tent=True, stages=["out"])
    assert boat == Boat(sails=1, length=12)


def test_later_files_override_earlier_ones(written):
    first = written("output_dir: a\nboat: {sails: 3, length: 12}\n", "first.yaml")
    second = written("boat: {sails: 4}\n", "second.yaml")
    settings = parse("--config", first, "--config", second)
    assert settings["boat"] == {"sails": 4, "length": 12}
    assert settings[""] == {"output_dir": "a"}


def test_values_are_read_as_yaml():
    trip, boat = journey(
        "--output_dir=a=b", "--guide", "null", "--days", "-2", "--luggage", "1e-3", "--boat.paint={b: 1}"
    )
    assert trip == Journey("a=b", days=-2, luggage=0.001, guide=None)
    assert boat.paint == {"b": 1}


def test_sections_may_be_arguments_of_a_trainer(written):
    config = written("reward: {li_weight: 0.3, learning_rate: 1e-4, report_to: none}\n")
    settings = parse("--config", config, "--reward.ge", "ircr", "--reward.output_dir", "out")
    args = build(GeliRewardArguments, settings["reward"])
    assert (args.ge, args.li_weight, args.learning_rate, args.weight_decay) == ("ircr", 0.3, 0.0001, 0.1)


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--luggge", "3"], ["command line", "'luggge'", "luggage"]),
        (["--xyz", "3"], ["'xyz'", "days, guide, luggage, output_dir, stages, tent"]),
        (["--boat.xyz", "3"], ["'boat.xyz'", "length, paint, sails"]),
        (["--bat", "3"], ["'bat'", "boat"]),
        (["--ship.sails", "3"], ["'ship'", "'ship.sails'", "boat, reward"]),
        (["--days", "3"], ["'output_dir'"]),
        (["days", "3"], ["command line", "'days'"]),
        (["--stages", "[out"], ["command line", "--stages [out", "YAML"]),
        (["--config", "nowhere.yaml"], ["--config", "nowhere.yaml"]),
        (["--config"], ["--config"]),
    ],
)
def test_a_wrong_command_line(argv, named):
    assert [part for part in named if part not in problem(*argv)] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("boat: {sail: 3}\n", ["'boat.sail'", "sails"]),
        ("ship.sails: 3\n", ["'ship'", "'ship.sails'"]),
        ("1: 2\n", ["'1'"]),  # names that YAML does not read as text
        ("boat:\n  yes: 2\n", ["'boat.True'"]),
        ("boat: 3\n", ["'boat'", "found 3"]),
        ("boat: {sails: [\n", ["YAML"]),
        ("- boat\n", ["found ['boat']"]),
    ],
)
def test_a_wrong_file(written, text, named):
    config = written(text)
    message = problem("--config", config)
    assert message.startswith(f"{config}: ")
    assert [part for part in named if part not in message] == []


def test_a_file_that_is_no_text(tmp_path):
    assert str(tmp_path) in problem("--config", str(tmp_path))
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    assert problem("--config", str(tmp_path / "picture.yaml")).startswith(f"{tmp_path}/picture.yaml: ")


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("days", "many", "int"),
        ("days", "3.5", "int"),
        ("days", "true", "int"),
        ("days", "null", "int"),
        ("luggage", "heavy", "float"),
        ("luggage", "[1]", "float"),
        ("tent", "maybe", "bool"),
        ("stages", "out", "list"),
        ("guide", "7", "str or NoneType"),
        ("boat.paint", "red", "dict"),
    ],
)
def test_a_value_of_the_wrong_type(flag, value, expected):
    assert problem("--output_dir", "x", f"--{flag}", value).startswith(f"{flag.split('.')[-1]}: expected {expected}, ")


def test_a_whole_number_is_a_number():
    assert build(Journey, {"output_dir": "x", "luggage": 8}).luggage == 8


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_settings(flag, capsys):
    sections = SECTIONS | {"sft": TrainingArguments}
    with pytest.raises(SystemExit) as stopped:
        parse_settings(["--days", "4", flag], Journey, sections)
    assert not stopped.value.code
    lines = capsys.readouterr().out.splitlines()
    assert "--output_dir (needed)" in lines
    assert "--stages (default: ['out', 'back'])" in lines
    assert "    --boat.sails (default: 2)" in lines
    assert any(line.startswith("    --reward.li_weight (default: ") for line in lines)
    assert "--sft.NAME: TrainingArguments, see transformers.training_args" in lines
    assert sum("--sft." in line for line in lines) == 1  # and not the hundreds of another library
