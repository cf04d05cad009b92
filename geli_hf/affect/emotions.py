"""The emotions that everything here speaks of: CANDOR's eight, in CANDOR's order."""

from collections.abc import Sequence

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
HAPPINESS = EMOTIONS.index("happiness")
# The columns of CANDOR's features, and of the tables that are made of video here.
FACE_COLUMNS = [f"prob_face_{emotion}" for emotion in EMOTIONS]

# What other classifiers call them.
_SYNONYMS = {
    "angry": "anger",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "smile": "happiness",
    "smiling": "happiness",
    "calm": "neutral",
    "sad": "sadness",
    "surprised": "surprise",
}


def emotions_of_labels(labels: Sequence[str]) -> list[int]:
    """For each label of a classifier the index of its emotion in `EMOTIONS`.

    Raises:
        ValueError: a label is no emotion that is known here, or two are the same one, or none is happiness.
    """
    names = [_SYNONYMS.get(label.strip().lower(), label.strip().lower()) for label in labels]
    if unknown := [label for label, name in zip(labels, names) if name not in EMOTIONS]:
        raise ValueError(
            f"labels: expected emotions ({', '.join(EMOTIONS)}), found {', '.join(map(repr, unknown))}; "
            "give the classifier's `id2label` these names"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"labels: expected one label for an emotion, found {', '.join(labels)}")
    if "happiness" not in names:
        raise ValueError(f"labels: expected happiness among them, found {', '.join(labels)}")
    return [EMOTIONS.index(name) for name in names]
