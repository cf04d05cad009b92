"""Time to load CANDOR at its true size, 1,656 conversations of 31 minutes: at first, and from the cache.

    python benchmarks/candor_full.py                        # two minutes, and 2.6 GB of disk until it ends
    python benchmarks/candor_full.py --conversations 100    # a quick look

The conversations are synthetic, with the utterances and the columns of the sample corpus and filler besides: other
columns of text in the transcript, and gaze, pitch, intensity and MFCCs in the features. They have just been written,
so they are read from the memory of the system rather than from a disk.

Every load runs in a process of its own. The seconds leave the imports out; on a busy machine look at those of the
processor. The memory is the peak resident set, to which that of the largest helper is added as often
as there are helpers, although they share a part of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from time import perf_counter

SECONDS, TURNS_A_SIDE, FILLER = 1880, 160, 40
CACHED_SECONDS, PEAK_GB = 1.0, 2.0
POOL = 500  # different rows of features

READ = """
import json, resource, sys, time
import datasets
from geli_hf.data import candor, load_sessions
def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both), [each.ru_maxrss for each in both]
start, (cpu_start, _) = time.perf_counter(), used()
sessions = load_sessions("candor", data_dir=sys.argv[1], cache_dir=sys.argv[2], num_proc=int(sys.argv[3]))
seconds, (cpu, peaks) = time.perf_counter() - start, used()
counts = {"rows": len(sessions), "messages": sum(map(len, sessions["messages"]))}
print(json.dumps({"seconds": seconds, "cpu": cpu - cpu_start, "peaks": peaks, **counts}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=1656)
    parser.add_argument(
        "--folder", help="where the corpus is written while this runs; default: the system's temp folder"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="candor_full_", dir=arguments.folder) as folder:
        corpus, start = Path(folder) / "corpus", perf_counter()
        size = write_corpus(corpus, arguments.conversations)
        print(
            f"{arguments.conversations} conversations, {size / 1e9:.2f} GB, written in {perf_counter() - start:.0f} s"
        )
        failed = []
        for processes in (1, 2):
            cache = Path(folder) / f"cache{processes}"
            first = read(corpus, cache, processes)
            again = read(corpus, cache, processes)
            print(
                f"{processes} process{'es' * (processes > 1)}: "
                f"first load {first['seconds']:.1f} s ({first['cpu']:.1f} s of the processor), "
                f"peak {first['peak_gb']:.2f} GB; "
                f"second load {again['seconds']:.2f} s, peak {again['peak_gb']:.2f} GB; "
                f"{first['rows']} sessions of {first['messages'] / first['rows']:.0f} messages"
            )
            if first["rows"] != 2 * arguments.conversations:
                failed.append(f"{first['rows']} sessions read")
            if first["peak_gb"] > PEAK_GB:
                failed.append(f"more than {PEAK_GB} GB at the first load with {processes}")
            if again["seconds"] > CACHED_SECONDS:
                failed.append(f"more than {CACHED_SECONDS} s for the second load")
        if failed:
            sys.exit("; ".join(failed))


def read(corpus: Path, cache: Path, processes: int) -> dict:
    """Load once in a fresh interpreter, and return its time without the imports and its peak memory."""
    command = [sys.executable, "-c", READ, str(corpus), str(cache), str(processes)]
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    measured = json.loads(output.stdout)
    own, child = measured["peaks"]
    return measured | {"peak_gb": (own + processes * child * (processes > 1)) * 1024 / 1e9}


def write_corpus(folder: Path, conversations: int) -> int:
    """Write the conversations, and return their size in bytes."""
    from geli_hf.simulator.corpus import FACE_COLUMNS, SURVEY_COLUMNS, TRANSCRIPT_COLUMNS

    rng = Random(0)
    texts = utterances()
    header = f"{FACE_COLUMNS},pitch,intensity," + ",".join(f"mfcc_{number}" for number in range(FILLER - 2))
    faces = [_features_row(rng) for _ in range(POOL)]
    times = [f"0 days 00:{second // 60:02d}:{second % 60:02d}" for second in range(SECONDS)]
    size = 0
    for number in range(conversations):
        home = folder / f"conversation_{number:04d}"
        (home / "transcription").mkdir(parents=True)
        people = [f"{rng.getrandbits(96):024x}" for _ in range(2)]
        survey = [
            f"{me},{you},{home.name},2020-05-01,{rng.randint(1, 9)},{rng.randint(1, 9)},7,{rng.randint(0, 100)}"
            for me, you in (people, people[::-1])
        ]
        transcript, length = [], SECONDS / (2 * TURNS_A_SIDE)
        for turn in range(2 * TURNS_A_SIDE):
            start, text = turn * length, rng.choice(texts)
            spoken = f'{start:.2f},{start + 0.9 * length:.2f},"{text}"'
            rest = f'0.58,{0.9 * length:.2f},0,False,False,{len(text.split())},"{text.lower()}",pronunciation,0.98'
            transcript.append(f"{turn},{people[turn % 2]},{spoken},{rest}")
        features = [
            f"{time},{person},{face}" for person in people for time, face in zip(times, rng.choices(faces, k=SECONDS))
        ]
        for name, columns, rows in (
            ("survey.csv", SURVEY_COLUMNS, survey),
            ("transcription/transcript_cliffhanger.csv", f"{TRANSCRIPT_COLUMNS},plain,type,confidence", transcript),
            ("audio_video_features.csv", header, features),
        ):
            size += (home / name).write_bytes("\n".join([columns, *rows, ""]).encode())
        (home / "metadata.json").write_text(json.dumps({"convo_id": home.name, "participants": people}))
    return size


def _features_row(rng: Random) -> str:
    """Draw probabilities of the emotions, and filler; in some rows no face was seen."""
    chances = [rng.random() ** 4 for _ in range(8)]
    seen = [f"{chance / sum(chances):.4f}" for chance in chances] if rng.random() < 0.9 else [""] * 8
    return ",".join([*seen, f"{rng.random():.3f}", *(f"{rng.gauss(0, 9):.3f}" for _ in range(FILLER))])


def utterances() -> list[str]:
    """Draw utterances of the people of the sample corpus."""
    import numpy as np

    from geli_hf.simulator.people import converse, draw_traits

    rng = np.random.default_rng(0)
    talks = [converse([draw_traits(rng) for _ in range(2)], rng) for _ in range(40)]
    return [message.text for talk in talks for message in talk]


if __name__ == "__main__":
    main()
