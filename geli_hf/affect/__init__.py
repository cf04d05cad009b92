"""What the listener showed: faces in video, the sentiment of words, and how either becomes one number per turn.

Names are imported when they are first used: readers of corpora need none of what video needs.
"""

from importlib import import_module

_EXPORTS = {
    "backends": ["face_classifier", "face_detector"],
    "classifier": ["ImageAffect"],
    "deepface": ["DeepFaceAffect", "DeepFaceDetector"],
    "detection": ["CascadeDetector", "YuNetDetector"],
    "emotions": ["EMOTIONS"],
    "recordings": ["session_of_recording"],
    "sentiment": ["NextTurnSentiment"],
    "transcripts": ["Transcript", "Utterance", "read_transcript"],
    "turns": ["affect_of_turns"],
    "video": ["VideoAffect", "write_candor_features"],
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
