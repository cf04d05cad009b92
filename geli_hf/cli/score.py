"""`geli score`: a reward for every assistant turn of recorded sessions."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice, tee
from pathlib import Path
from typing import TextIO

from .common import add_compute, add_corpus, compute_options, count, load_corpus

BAR = 5  # squares on either side of the middle line
MARGIN = " " * 18  # of a bar and the speaker


def add_parser(commands) -> None:
    parser = commands.add_parser("score", help="reward every assistant turn of recorded sessions")
    add = parser.add_argument
    add("sessions", help="JSON lines with `messages` (- for standard input), or a corpus")
    add("--model", help="reward model: a folder, or a name on the Hub (default: the one that comes with the package)")
    add("--with-reactions", action="store_true", help="explain turns by an attribution, which sees the reactions")
    add("--format", choices=("jsonl", "table"), default="jsonl", help="default: jsonl")
    add("--limit", type=count, help="the first so many sessions only")
    add_compute(parser)
    add_corpus(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, out: TextIO) -> None:
    sessions = islice(_read_sessions(arguments), arguments.limit)
    first = next(sessions, None)  # an error in the first line is raised before a model is loaded
    if first is None:
        raise ValueError(f"{arguments.sessions}: no session in it")
    scored_sessions, shown_sessions = tee(chain([first], sessions))  # never more than a batch apart
    model, scores = _score(arguments, scored_sessions)
    for scored, session in zip(scores, shown_sessions):
        if arguments.format == "table":
            out.write("\n".join(_draw(model, session, scored)) + "\n\n")
        else:
            row_id = {"session_id": session["session_id"]} if "session_id" in session else {}
            out.write(json.dumps(row_id | scored, ensure_ascii=False) + "\n")
        out.flush()


def _score(arguments: argparse.Namespace, sessions: Iterator[dict]):
    """Open a reward model, or an attribution, and score sessions with it."""
    from ..alignment.shipped import REWARD
    from ..models.loading import is_attribution, open_model

    name = arguments.model or str(REWARD)
    explains = is_attribution(name)
    if explains != arguments.with_reactions:
        kind = "an attribution, which needs" if explains else "a reward model, which takes no"
        raise ValueError(f"--model: {name} is {kind} --with-reactions")
    model = open_model(name, **compute_options(arguments))
    return model.model if explains else model, model.iter_scores(sessions, batch_size=arguments.batch_size)


def _read_sessions(arguments: argparse.Namespace) -> Iterator[dict]:
    """Yield rows with messages, and with feedback where the model reads it; JSON lines are streamed."""
    name = arguments.sessions
    if name == "-":
        yield from _read_lines(sys.stdin.buffer, "standard input", arguments.with_reactions)
    elif Path(name).suffix == ".jsonl":
        if arguments.data_dir is not None:
            raise ValueError(f"--data-dir: {name} is a file and no corpus in a folder; leave --data-dir out")
        with open(name, "rb") as lines:
            yield from _read_lines(lines, name, arguments.with_reactions)
    else:
        yield from load_corpus(arguments)


def _read_lines(lines: Iterable[bytes], name: str, with_feedback: bool) -> Iterator[dict]:
    from ..data.rows import read_json_lines
    from ..sessions import SessionError, is_number, numbers_per_turn, validate_messages

    for where, row in read_json_lines(lines, name):
        validate_messages(row.get("messages"), where)
        if not is_number(row.get("score") or 0.0):
            raise SessionError(f"{where}, field 'score': expected a finite number or null, found {row['score']!r:.80}")
        if with_feedback:
            feedback = row.get("feedback") or {}
            if not isinstance(feedback, dict):
                raise SessionError(f"{where}, field 'feedback': expected one named list per signal, found {feedback}")
            row["feedback"] = {
                signal: numbers_per_turn(row, values, f"{where}, field 'feedback.{signal}'")
                for signal, values in feedback.items()
                if values is not None
            }
        yield row


def _draw(model, session: dict, scored: dict) -> Iterator[str]:
    """Write a session for a terminal: each assistant turn with a bar and a note, and the score at the end."""
    import shutil
    from textwrap import wrap

    width = min(max(60, shutil.get_terminal_size((100, 20)).columns), 120)
    config, parts = model.config, scored.get("parts", {})
    scale = max(map(abs, [*config.reward_quantiles[1:-1], *scored["turn_rewards"]])) or 1.0
    turns = zip(scored["turn_rewards"], *parts.values())
    yield f"── {session.get('session_id', 'session')} ".ljust(width, "─")
    for message in session["messages"]:
        lines = wrap(" ".join(message["content"].split()), width - 20) or [""]
        if message["role"] == "assistant":
            reward, *values = next(turns)
            lines += wrap(f"({_note(model, reward, dict(zip(parts, values)))})", width - 20)
            yield f"{_bar(reward / scale)} agent {lines[0]}"
        else:
            yield f"{'':11} user  {lines[0]}"
        yield from (f"{MARGIN}{line}" for line in lines[1:])
    spread = f" ± {config.residual_std:.1f}" if config.residual_std else ""
    rating = session.get("score")
    rated = f", rated {rating:g}" if rating is not None and rating == rating else ""
    cropped = "; longer than the model's context" if scored["cropped"] else ""
    kind = "explained" if parts else "predicted"
    yield f"{'':11} {kind} score {scored['score']:.1f}{spread}{rated}{cropped}"


def _note(model, reward: float, parts: dict[str, float]) -> str:
    """Write a reward with its percentile, or with the parts of its sum that are not 0."""
    if parts:
        return f"{reward:+.2f} = " + ", ".join(f"{name} {value:+.2f}" for name, value in parts.items() if value)
    share = model.percentile(reward)
    return f"{reward:+.2f}" + (f", better than {share:.0%} of turns" if share == share else "")


def _bar(share: float) -> str:
    """Draw a bar of eleven columns from a middle line: to the right where the share, from -1 to 1, is positive."""
    length = min(BAR, round(abs(share) * BAR))
    return f"{'▒' * length if share < 0 else '':>{BAR}}│{'█' * length if share > 0 else '':<{BAR}}"
