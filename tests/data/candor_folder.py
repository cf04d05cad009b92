"""Small CANDOR conversations in the layout of the corpus."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from geli_hf.affect.emotions import EMOTIONS
from geli_hf.data import load_sessions

# The two people. Ids of numbers must stay text: 007 is not 7.
ANN, BEN = "ann", "007"
TRANSCRIPT = "transcription/transcript_cliffhanger.csv"


def face(emotion: str | None, probability: float = 0.65) -> dict[str, float]:
    """Make the probabilities of one second, the rest shared by the other emotions; NaN for `None`, no face."""
    rest = (1 - probability) / (len(EMOTIONS) - 1)
    return {
        f"prob_face_{name}": np.nan if emotion is None else probability if name == emotion else rest
        for name in EMOTIONS
    }


def seconds(person: str, *emotions: str | None, first: int = 0) -> list[dict]:
    """Make rows of the features, one for each second from `first`."""
    return [
        {"timedelta": f"0 days 00:00:{first + second:02d}", "user_id": person, "pitch": 200.5, **face(emotion)}
        for second, emotion in enumerate(emotions)
    ]


TURNS = [
    (ANN, 0, 3, "I have just moved to the sea, finally 🌊"),
    (BEN, 4, 6, "What made you choose"),
    (BEN, 6, 9, "the sea, of all places?"),
    (ANN, 10, 11, "null"),
    (BEN, 12, 12.5, ""),
    (ANN, 13, 14, "Ich mag Möwen."),
    (BEN, 20, 23, "Well then, that is that, I suppose."),
]
FACES = [
    *seconds(ANN, "neutral", "neutral", "neutral", "neutral"),
    # while Ben asks, from 4 to 9: Ann smiles in three seconds of five that show her
    *seconds(ANN, "neutral", "happiness", None, "happiness", "sadness", "happiness", first=4),
    *seconds(BEN, "happiness", "happiness", "surprise", "happiness"),
    *seconds(BEN, None, None, None, None, "happiness", first=10),
]


class CandorFolder:
    """Folder of conversations."""

    def __init__(self, path: Path):
        self.path = path

    def add(self, name: str = "one", *, turns=TURNS, survey=None, faces=FACES, ratings=None) -> Path:
        home = self.path / name
        (home / "transcription").mkdir(parents=True)
        rows = [
            {"turn_id": number, "speaker": who, "start": start, "stop": stop, "utterance": text, "n_words": 1}
            for number, (who, start, stop, text) in enumerate(turns)
        ]
        columns = ["turn_id", "speaker", "start", "stop", "utterance", "n_words"]
        for segmentation in ("cliffhanger", "backbiter"):
            pd.DataFrame(rows, columns=columns).to_csv(
                home / "transcription" / f"transcript_{segmentation}.csv", index=False
            )
        if survey is None:
            survey = [
                {"user_id": ANN, "partner_id": BEN, "overall_affect": 8, "good_for_advice": 70.5, "age": 33},
                {"user_id": BEN, "partner_id": ANN, "overall_affect": 3, "good_for_advice": 20.0, "age": 44},
            ]
        pd.DataFrame(survey).to_csv(home / "survey.csv", index=False)
        if faces is not None:
            pd.DataFrame(faces).to_csv(home / "audio_video_features.csv", index=False)
        if ratings is not None:
            pd.DataFrame(ratings, columns=["turn_id", "rating"]).to_csv(home / "turn_ratings.csv", index=False)
        (home / "metadata.json").write_text("{}")
        return home

    def load(self, **options):
        return load_sessions("candor", data_dir=self.path, cache_dir=self.path.parent / "cache", **options)


def edit(path, change):
    """Rewrite a CSV file by a function of its table."""
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def edit_text(path, change):
    before = path.read_text(encoding="utf-8")
    path.write_text(change(before), encoding="utf-8", newline="")
    assert path.read_text(encoding="utf-8") != before


def cut(path, *, at):
    path.write_bytes(path.read_bytes()[:at])


def zipped(home, *, top="", extra=(), huge=None, compression=zipfile.ZIP_STORED):
    """Replace the conversation's folder by a zip; members of `huge` hold so many zeros."""
    path = home.parent / f"{home.name}.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(file for file in home.rglob("*") if file.is_file()):
            name = str(file.relative_to(home))
            if name not in (huge or {}):
                archive.write(file, f"{top}{name}")
        for name, size in (huge or {}).items():
            with archive.open(name, "w") as member:
                for _ in range(size >> 20):
                    member.write(bytes(1 << 20))
        for name in extra:
            archive.writestr(name, "x")
    shutil.rmtree(home)
    return path


def set_size(path, name, size):
    """Forge the size of a zip's member, in the directory and before the member."""
    data = bytearray(path.read_bytes())
    for signature, at_size, at_name in ((b"PK\x01\x02", 24, 46), (b"PK\x03\x04", 22, 30)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            if data[at + at_name : at + at_name + len(name)] == name.encode():
                data[at + at_size : at + at_size + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)


def same(one, other):
    """Compare rows, NaN too."""
    return str(one[:]) == str(other[:])
