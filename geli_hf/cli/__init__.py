"""The command `geli`."""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain, islice, tee
from pathlib import Path
from typing import TextIO

DESCRIPTION = "One rating in, a reward for every turn out."


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="geli", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    score = commands.add_parser("score", help="reward every assistant turn of recorded sessions")
    score.add_argument("sessions", help="JSON lines with `messages` (- for standard input), or a corpus")
    score.add_argument("--model", required=True, help="reward model: a folder, or a name on the Hub")
    reactions_help = "the model is an attribution of fit_hindsight: say what turns were worth, the reactions seen"
    score.add_argument("--with-reactions", action="store_true", help=reactions_help)
    score.add_argument("--format", choices=("jsonl", "table"), default="jsonl", help="default: jsonl")
    score.add_argument("--limit", type=_count, help="score the first so many sessions only")
    batch_help = "sessions at once; changes no score (default: 32)"
    score.add_argument("--batch-size", type=_count, default=32, help=batch_help)
    score.add_argument("--data-dir", help="where the corpus lies, if SESSIONS names one")
    score.set_defaults(run=_score)

    convert = commands.add_parser(
        "convert-head",
        help="make a reward model of the published GELI head",
        description="Make a reward model of the published GELI head, without running anything that its file names. "
        "The published encoder was trained too, and is not in the file; and its text format was another. So the "
        "rewards are those of the head on the encoder that you name, and not those of the published system. "
        "The head's licence is its authors' (CC BY-NC-SA 4.0).",
    )
    convert.add_argument("file", help="the published file, a pickled module as torch.save wrote it")
    backbone_help = "encoder: a folder, or a name on the Hub (default: facebook/bart-large)"
    convert.add_argument("--backbone", default="facebook/bart-large", help=backbone_help)
    convert.add_argument("--output", required=True, help="folder for the reward model, new or empty")
    convert.set_defaults(run=_convert_head)

    _add_evaluate(commands)
    _add_train_judge(commands)
    _add_evaluate_policy(commands)
    _add_decompose(commands)
    _add_annotate_video(commands)
    _add_push(commands)

    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments, sys.stdout)
    except BrokenPipeError:  # `geli score ... | head`
        sys.stderr.close()
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"geli {arguments.command}: {error}")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text!r}")
    return int(text)


def _score(arguments: argparse.Namespace, out: TextIO) -> None:
    sessions = islice(_sessions(arguments), arguments.limit)
    first = next(sessions, None)  # a file that is wrong from the start is told before a model is loaded
    if first is None:
        raise ValueError(f"{arguments.sessions}: no session in it")
    read, shown = tee(chain([first], sessions))  # never more than a batch apart
    model, scores = _scores(arguments, read)
    for scored, session in zip(scores, shown):
        if arguments.format == "table":
            out.write("\n".join(_drawn(model, session, scored)) + "\n\n")
        else:
            named = {"session_id": session["session_id"]} if "session_id" in session else {}
            out.write(json.dumps(named | scored, ensure_ascii=False) + "\n")
        out.flush()


def _scores(arguments: argparse.Namespace, sessions: Iterator[dict]):
    """The reward model, and what it, or the attribution that it is a part of, says of each session."""
    from ..models.loading import is_attribution, open_model

    name = arguments.model
    explains = is_attribution(name)
    if explains and not arguments.with_reactions:
        raise ValueError(
            f"--model: {name} is an attribution: it explains recorded sessions from what the listener answered, and "
            "without that it is no reward model. Add --with-reactions; or, for a reward that sees no reaction, give "
            "the model that was fitted with it (fit_hindsight(...).reward_model.save_pretrained)"
        )
    if arguments.with_reactions and not explains:
        raise ValueError(
            f"--with-reactions: {name} is a reward model, which sees no reaction. Leave --with-reactions out, or give "
            "an attribution, as fit_hindsight(...).attribution.save_pretrained(FOLDER) writes it"
        )
    model = open_model(name)
    return model.model if explains else model, model.iter_scores(sessions, batch_size=arguments.batch_size)


def _convert_head(arguments: argparse.Namespace, out: TextIO) -> None:
    from ..cache import whole
    from ..models.published_head import convert_head

    output = Path(arguments.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"--output: {output} holds something; choose an empty or a new folder")
    model = convert_head(arguments.file, arguments.backbone)
    with whole(output) as partial:
        model.save_pretrained(partial)
    out.write(f"{output}: the published head on {arguments.backbone}; its rewards are not the published system's\n")


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="how well turn rewards agree with ratings of the turns",
        description="How well the turn rewards of finished models agree with the turn ratings of sessions, beside "
        "trivial rows that any model has to beat. Prints Markdown tables with 95 % intervals over conversations, "
        "and the reason wherever there is nothing to compute a figure from.",
    )
    add = evaluate.add_argument
    add("sessions", help="Session rows, or a corpus, as `load_sessions` takes them; best with `turn_rating`")
    model_help = "reward models, or attributions of fit_hindsight: folders, or names on the Hub"
    add("--model", required=True, nargs="+", metavar="MODEL", help=model_help)
    add("--data-dir", help="where the corpus lies, if SESSIONS names one")
    add("--options", metavar="JSON", default="{}", help="JSON object of options of the corpus's reader")
    add("--against", metavar="NAME", help="model, or row, to compare the others with (default: the first model)")
    add("-o", "--output", metavar="FOLDER", help="where to write evaluation.md, evaluation.json and evaluation.png")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace, out: TextIO) -> None:
    from .evaluate import evaluate

    evaluate(arguments, out)


def _add_train_judge(commands) -> None:
    judge = commands.add_parser(
        "train-judge",
        help="learn to judge replies from people's ratings of turns",
        description="Learn from people's ratings of single turns to judge the replies of a policy, and say how well "
        "that agrees with the ratings of other sessions. The judge is a folder as a reward model's is. Take sessions "
        "that no reward model of the policy has learned from.",
    )
    add = judge.add_argument
    add("sessions", help="Session rows with `turn_rating`, or a corpus, as `load_sessions` takes them")
    add("--data-dir", help="where the corpus lies, if SESSIONS names one")
    add("--options", metavar="JSON", default="{}", help="JSON object of options of the corpus's reader")
    held_out_help = "options of the sessions that it is measured on, over --options"
    add("--held-out-options", metavar="JSON", help=held_out_help)
    share_help = "share of the conversations that it is measured on, without --held-out-options (default: 0.2)"
    add("--held-out-share", type=float, default=0.2, help=share_help)
    add("--seed", type=int, default=0, help="of that split (default: 0)")
    add("--backbone", help="encoder or decoder: a folder, or a name on the Hub (default: all-MiniLM-L6-v2)")
    context_help = "messages before a turn that it is read with (default: 1)"
    add("--context-messages", type=int, default=1, help=context_help)
    length_help = "pay for length what the raters paid; by default the length of a turn is held fixed"
    add("--with-length", action="store_true", help=length_help)
    add("-o", "--output", metavar="FOLDER", required=True, help="folder for the judge, new or empty")
    judge.set_defaults(run=_train_judge)


def _train_judge(arguments: argparse.Namespace, out: TextIO) -> None:
    from .train_judge import train_judge

    train_judge(arguments, out)


def _add_evaluate_policy(commands) -> None:
    evaluate = commands.add_parser(
        "evaluate-policy",
        help="what a policy gained by alignment, by a judge that is not its reward",
        description="Have a policy and what was made of it by alignment answer the same held-out dialogues, and let a "
        "judge say which replies are better. Of several aligned policies, such as the checkpoints of a run, the judge "
        "chooses one on a part of the conversations, and it is reported on the rest.",
    )
    add = evaluate.add_argument
    add("base", metavar="BASE", help="policy before alignment: a folder, or a name on the Hub")
    aligned_help = "policies after it: folders (adapters and checkpoints too), or names on the Hub"
    add("aligned", metavar="ALIGNED", nargs="+", help=aligned_help)
    sessions_help = "Session rows, or a corpus, as `load_sessions` takes them, that no policy has learned from"
    add("--sessions", required=True, help=sessions_help)
    add("--data-dir", help="where the corpus lies, if --sessions names one")
    add("--options", metavar="JSON", default="{}", help="JSON object of options of the corpus's reader")
    judge_help = "truth (of the sample, and its default), a folder of `geli train-judge`, or llm"
    add("--judge", help=judge_help)
    add(
        "--reward", metavar="MODEL", help="the reward model that the policy was trained for, to stand beside the judge"
    )
    share_help = "share of the conversations that one of several policies is chosen on (default: 0.5)"
    add("--validation-share", type=float, default=0.5, help=share_help)
    add("--replies", type=_count, default=400, help="dialogues that each policy answers (default: 400)")
    add("--context-messages", type=_count, default=6, help="messages that a policy is shown (default: 6)")
    add("--max-new-tokens", type=_count, default=64, help="longest reply, in tokens (default: 64)")
    add("--temperature", type=float, default=0.8, help="of sampling (default: 0.8)")
    add("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    add("--batch-size", type=_count, default=64, help="replies that are sampled together (default: 64)")
    add("--llm-model", metavar="NAME", help="the language model of --judge llm, as `geli decompose` takes it")
    where = evaluate.add_mutually_exclusive_group()
    where.add_argument("--base-url", help="OpenAI-compatible server, as in http://localhost:8000/v1")
    where.add_argument("--provider", help="Inference Provider of the Hub, or auto")
    add("--token-env", metavar="VARIABLE", help="environment variable that holds the key")
    add("--parameters", metavar="JSON", default="{}", help="JSON object of further parameters of the request")
    add("--timeout", type=float, default=120.0, help="seconds to wait for an answer (default: 120)")
    add("-o", "--output", metavar="FOLDER", help="where to write the text, every figure, the pictures and the replies")
    evaluate.set_defaults(run=_evaluate_policy)


def _evaluate_policy(arguments: argparse.Namespace, out: TextIO) -> None:
    from .evaluate_policy import evaluate_policy

    evaluate_policy(arguments, out)


def _add_decompose(commands) -> None:
    decompose = commands.add_parser(
        "decompose",
        help="ask a language model what each turn contributed to the score",
        description="Ask a language model what each turn of the assistant contributed to the session's score "
        "(LLM-GELI), and write the sessions with its answers as a signal in `feedback`. Answers are kept, so that a "
        "run that was stopped goes on where it was, and none is paid twice. The exit status is 1 if a session failed.",
    )
    add = decompose.add_argument
    add("sessions", help="Session rows, or a corpus, as `load_sessions` takes them")
    add("--model", required=True, help="name of the model; without the next two: a folder or a name on the Hub")
    where = decompose.add_mutually_exclusive_group()
    where.add_argument("--base-url", help="OpenAI-compatible server, as in http://localhost:8000/v1")
    where.add_argument("--provider", help="Inference Provider of the Hub, or auto")
    token_help = "environment variable that holds the key (default: HF_TOKEN for a provider, no key for a server)"
    add("--token-env", metavar="VARIABLE", help=token_help)
    add("--with-behaviour", action="store_true", help="tell the model the listener's behaviour, column `behaviour`")
    add("--name", help="of the signal (default: llm, or llm_behaviour)")
    add("--prompt", metavar="FILE", help="template of the question, in place of the package's own")
    scale_help = "lowest and highest possible score (default: those that are there)"
    add("--scale", nargs=2, type=float, metavar=("LOWEST", "HIGHEST"), help=scale_help)
    add("--window", type=_count, default=40, help="turns that are asked about at once (default: 40)")
    add("--overlap", type=_count, default=8, help="turns that two windows have in common (default: 8)")
    add("--attempts", type=_count, default=3, help="questions before a session counts as failed (default: 3)")
    parameters_help = "JSON object of further parameters of the request, such as max_tokens; null leaves one out"
    add("--parameters", metavar="JSON", default="{}", help=parameters_help)
    add("--max-concurrency", type=_count, default=8, help="sessions that are asked about at once (default: 8)")
    add("--timeout", type=float, default=120.0, help="seconds to wait for an answer (default: 120)")
    add("--limit", type=_count, help="the first so many sessions only")
    add("--data-dir", help="where the corpus lies, if SESSIONS names one")
    add("--cache-dir", help="where answers are kept (default: llm in the cache of geli_hf)")
    add("--dry-run", action="store_true", help="say how many calls and tokens it would take, and send nothing")
    add("-o", "--output", help="JSON lines to write")
    decompose.set_defaults(run=_decompose)


def _decompose(arguments: argparse.Namespace, out: TextIO) -> None:
    from .decompose import decompose

    if decompose(arguments, out):
        sys.exit(1)


def _add_annotate_video(commands) -> None:
    annotate = commands.add_parser(
        "annotate-video",
        help="what the listener's face showed in recordings, as feedback of each turn",
        description="Watch the listener's face in recordings, match it with their transcripts, and write Session rows "
        "with the feedback `affect` and `affect_mean` for every turn of the assistant. Faces are looked at in memory "
        "and never written. What was watched is kept as numbers in the cache, so that a run that was stopped goes on. "
        "The exit status is 1 if a recording failed. It is a smile detector: expressions are not feelings.",
    )
    add = annotate.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="recordings of the listener, one for each session")
    transcript_help = "one for each video (.csv, .json, .srt, .vtt), or their folder (default: beside the videos)"
    add("--transcript", nargs="+", default=[], metavar="T", help=transcript_help)
    add("-o", "--output", required=True, help="JSON lines to write")
    add("--listener", help="the speaker whose face it is, as the transcripts call them (default: user)")
    add("--scores", metavar="FILE", help="CSV with session_id (a video's name without its ending) and score")
    backend_help = "geli, deepface, deepface:pytorch, or an image classifier's folder or name (default: geli)"
    add("--backend", default="geli", help=backend_help)
    detector_help = "cascade, a YuNet model's path, or deepface:NAME[:ENGINE] (default: cascade)"
    add("--detector", default="cascade", help=detector_help)
    add("--fps", type=float, default=5.0, help="frames looked at per second (default: 5)")
    face_help = "largest, left, right, or x,y,width,height in pixels, if several faces are seen (default: largest)"
    add("--face", default="largest", help=face_help)
    add("--lag", type=float, default=0.0, help="seconds for which a face may answer after the turn (default: 0)")
    share_help = "a turn of whose frames a smaller share shows the face is missing (default: 0.25)"
    add("--min-share", type=float, default=0.25, help=share_help)
    add("--plot", metavar="PNG", help="a picture of the face and the turns over time; for several videos a folder")
    add("--features", metavar="DIR", help="write what the faces showed over time, in CANDOR's format")
    add("--jobs", type=_count, default=1, help="videos that are watched at once (default: 1)")
    annotate.set_defaults(run=_annotate_video)


def _annotate_video(arguments: argparse.Namespace, out: TextIO) -> None:
    from .annotate_video import annotate

    if problems := annotate(arguments, out):
        out.flush()
        sys.exit("not all is well:\n" + "\n".join(f"  {problem}" for problem in problems))


def _add_push(commands) -> None:
    push = commands.add_parser(
        "push",
        help="publish a model, sessions or a Space on the Hub",
        description="Publish a model, sessions or a Space on the Hugging Face Hub, in one commit or not at all. "
        "You are who `hf auth login` or HF_TOKEN says.",
    )
    kinds = push.add_subparsers(dest="kind", required=True, metavar="KIND")
    model = kinds.add_parser("model", help="a reward model, attribution, face classifier, policy or adapter")
    model.add_argument("folder", metavar="FOLDER", help="as save_pretrained wrote it; its config says what it is")
    model.set_defaults(run=_push_model)
    dataset = kinds.add_parser("dataset", help="Session rows, as Parquet")
    sessions_help = "Session rows, or a corpus, as `load_sessions` takes them; a folder has splits by its files' names"
    dataset.add_argument("sessions", metavar="SESSIONS", help=sessions_help)
    dataset.add_argument("--data-dir", help="where the corpus lies, if SESSIONS names one")
    options_help = "JSON object of options of the corpus's reader"
    dataset.add_argument("--options", metavar="JSON", default="{}", help=options_help)
    dataset.add_argument("--keep-rater-ids", action="store_true", help="publish rater ids as they are, not hashed")
    rights_help = "publish what looks like CANDOR, whose terms forbid it: you have leave, or it is not"
    dataset.add_argument("--i-have-the-rights", action="store_true", help=rights_help)
    dataset.set_defaults(run=_push_dataset)
    space = kinds.add_parser("space", help="the app of a folder of spaces/, with this package beside it")
    space.add_argument(
        "name", metavar="NAME", help="a folder of spaces/ in the repository, or the path of another one"
    )
    space.add_argument("--model", metavar="OWNER/NAME", help="the model that it shows, as the variable GELI_MODEL")
    space.add_argument("--hardware", help="such as t4-small; some costs")
    value_help = "may be repeated; without =VALUE, what that variable holds here"
    secret_help = f"one that nobody can read back; {value_help}"
    space.add_argument("--secret", metavar="NAME[=VALUE]", action="append", default=[], help=secret_help)
    variable_help = f"one of the app's environment; {value_help}"
    space.add_argument("--variable", metavar="NAME[=VALUE]", action="append", default=[], help=variable_help)
    space.set_defaults(run=_push_space)
    for kind in (model, dataset, space):
        add = kind.add_argument
        add("--repo", required=True, metavar="OWNER/NAME", help="repository on the Hub; made if it is not there")
        add("--private", action="store_true", help="make it a private one")
        add("--create-pr", action="store_true", help="open a pull request, in place of a commit")
        add("--revision", help="branch (default: main); made if it is not there")
        add("--replace-card", action="store_true", help="replace the card even if it was edited on the Hub")
        add("--dry-run", action="store_true", help="list files, sizes and the card, and send nothing")


def _push_model(arguments: argparse.Namespace, out: TextIO) -> None:
    from .push import push_model

    push_model(arguments, out)


def _push_dataset(arguments: argparse.Namespace, out: TextIO) -> None:
    from .push import push_dataset

    push_dataset(arguments, out)


def _push_space(arguments: argparse.Namespace, out: TextIO) -> None:
    from .push import push_space

    push_space(arguments, out)


def _sessions(arguments: argparse.Namespace) -> Iterator[dict]:
    """Rows to score, read as they are asked for: they need messages, and what reactions they have if these count."""
    name = arguments.sessions
    if name == "-":
        yield from _lines(sys.stdin, "standard input", arguments.with_reactions)
    elif Path(name).suffix == ".jsonl" or (Path(name).is_file() and Path(name).suffix != ".parquet"):
        if arguments.data_dir is not None:
            raise ValueError(f"--data-dir: {name} is a file and no corpus that lies in a folder; leave --data-dir out")
        with open(name, encoding="utf-8-sig") as file:
            try:
                yield from _lines(file, name, arguments.with_reactions)
            except UnicodeDecodeError as error:
                raise ValueError(f"{name}: not text in UTF-8 ({error.reason} at byte {error.start})") from None
    else:
        from ..data import load_sessions

        yield from load_sessions(name, data_dir=arguments.data_dir)


def _lines(file: TextIO, name: str, with_reactions: bool) -> Iterator[dict]:
    from ..sessions import SessionError, validate_messages

    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problem = f"not JSON ({error.msg} at column {error.colno})"
            raise SessionError(f"{where}: {problem}; expected one session on every line") from None
        if not isinstance(row, dict) or "messages" not in row:
            raise SessionError(f"{where}: expected an object with `messages`, found {line.strip()[:60]!r}")
        validate_messages(row["messages"], where)
        if with_reactions:
            row["feedback"] = _feedback(row, where)
        yield row


def _feedback(row: dict, where: str) -> dict[str, list[float]]:
    """The signals of a row, NaN where one is null; a signal that is null throughout is left out."""
    from ..sessions import SessionError, numbers_per_turn

    feedback = row.get("feedback") or {}
    if not isinstance(feedback, dict):
        raise SessionError(f"{where}, field 'feedback': expected one named list per signal, found {feedback!r}")
    return {
        name: numbers_per_turn(row, values, f"{where}, field 'feedback.{name}'")
        for name, values in feedback.items()
        if values is not None
    }


def _drawn(model, session: dict, scored: dict) -> list[str]:
    """A session as text for a terminal: each assistant turn with a bar of its reward, and its place among others or
    the parts that it is the sum of.
    """
    import shutil
    import textwrap

    width = max(60, min(shutil.get_terminal_size((100, 20)).columns, 120))
    config, rewards, parts = model.config, iter(scored["turn_rewards"]), scored.get("parts", {})
    values = zip(*parts.values())  # of each turn
    scale = max(map(abs, [*config.reward_quantiles[1:-1], *scored["turn_rewards"]])) or 1.0
    lines = [f"── {session.get('session_id', 'session')} ".ljust(width, "─")]
    for message in session["messages"]:
        assistant = message["role"] == "assistant"
        bar, place = " " * 11, ""
        if assistant:
            reward = next(rewards)
            bar = _bar(reward / scale)
            share = model.percentile(reward)
            place = f"{reward:+.2f}" + (f", better than {share:.0%} of turns" if share == share else "")
            if parts:  # an exact 0 is what was not observed, or is not trusted
                place += " = " + ", ".join(f"{part} {v:+.2f}" for part, v in zip(parts, next(values)) if v)
        text = textwrap.wrap(" ".join(message["content"].split()), width - 20) or [""]
        who = "agent" if assistant else "user "
        lines.append(f"{bar} {who} {text[0]}")
        lines += [f"{'':11}       {line}" for line in text[1:]]
        if place:
            lines += [f"{'':11}       {line}" for line in textwrap.wrap(f"({place})", width - 20)]
    spread = f" ± {config.residual_std:.1f}" if config.residual_std else ""
    given = session.get("score")
    rated = f", rated {given:g}" if given is not None and given == given else ""
    cropped = "; longer than the model's context" if scored["cropped"] else ""
    how = "explained score" if parts else "predicted score"
    lines.append(f"{'':11} {how} {scored['score']:.1f}{spread}{rated}{cropped}")
    return lines


def _bar(share: float, half: int = 5) -> str:
    """A bar around a middle line, to the right where positive; eleven columns."""
    length = min(half, round(abs(share) * half))
    return f"{'▒' * length if share < 0 else '':>{half}}│{'█' * length if share > 0 else '':<{half}}"


if __name__ == "__main__":
    main()
