"""The command `geli`. Its modules import nothing heavy before a handler runs, so that help is quick to show."""

import argparse
import sys
from importlib import import_module

COMMANDS = (
    "score",
    "convert_head",
    "evaluate",
    "learning_curve",
    "train_judge",
    "evaluate_policy",
    "pairs",
    "decompose",
    "annotate_video",
    "import_logs",
    "push",
    "serve",
)


def main(argv: list[str] | None = None) -> None:
    """Run a command.

    Args:
        argv: its words. Default: those of the process.

    Raises:
        SystemExit: the command fails; with a message where an argument or a file is wrong.
    """
    parser = argparse.ArgumentParser(prog="geli", description="One rating in, a reward for every turn out.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        import_module(f".{command}", __package__).add_parser(commands)
    arguments = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # whatever the locale: rows hold any language
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        arguments.run(arguments, sys.stdout)
    except BrokenPipeError:  # `geli score ... | head`
        sys.stderr.close()
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"geli {arguments.command}: {error}")
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # by its name: safetensors is slow to import here
            raise
        sys.exit(f"geli {arguments.command}: weights are damaged ({error}); fetch or save the model again")
