"""The emotions of the package: CANDOR's eight, in CANDOR's order."""

from collections.abc import Sequence

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
HAPPINESS = EMOTIONS.index("happiness")
NEGATIVE = [EMOTIONS.index(emotion) for emotion in ("anger", "contempt", "disgust", "fear", "sadness")]
# The columns of CANDOR's features, and of the tables that are made of video.
FACE_COLUMNS = [f"prob_face_{emotion}" for emotion in EMOTIONS]

# Labels of other classifiers.
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
    """Map each label of a classifier to the index of its emotion in `EMOTIONS`.

    Raises:
        ValueError: a label is no known emotion, two labels are the same one, or none is happiness.
    """
    names = [_SYNONYMS.get(label.strip().lower(), label.strip().lower()) for label in labels]
    if unknown := [label for label, name in zip(labels, names) if name not in EMOTIONS]:
        raise ValueError(
            f"labels: expected emotions ({', '.join(EMOTIONS)}), found {', '.join(map(repr, unknown))}; "
            "give the classifier's `id2label` these names"
        )
    if len(set(names)) < len(names) or "happiness" not in names:
        raise ValueError(
            f"labels: expected different emotions, happiness among them, found {', '.join(map(repr, labels))}"
        )
    return [EMOTIONS.index(name) for name in names]
