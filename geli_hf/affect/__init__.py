"""The listener's reactions, faces in video and the sentiment of words, as one number per turn.

Names are imported when they are first used: readers of corpora need no packages for video.
"""

from .._lazy import lazy_exports

_EXPORTS = {
    "backends": ["face_classifier", "face_detector"],
    "classify": ["ImageAffect"],
    "deepface": ["DeepFaceAffect"],
    "detect": ["CascadeDetector", "YuNetDetector"],
    "emotions": ["EMOTIONS"],
    "session": ["session_of_recording"],
    "sentiment": ["NextTurnSentiment"],
    "transcripts": ["Transcript", "Utterance", "read_transcript"],
    "turns": ["affect_of_turns"],
    "video": ["VideoAffect"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
