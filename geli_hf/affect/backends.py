"""What reads and what finds a face, by name: as a command line or a demo asks for them."""

from pathlib import Path

from .faces import FaceClassifier, FaceDetector

ENGINES = ("onnx", "pytorch", "tensorflow")


def face_classifier(name: str = "geli") -> FaceClassifier:
    """
    Args:
        name: `geli`, the one that comes with the package; `deepface`, or `deepface:` and one of `ENGINES`; or the
            folder, or the name on the Hub, of an image classifier whose labels are emotions.

    Raises:
        ImportError, OSError, ValueError: it isn't there, or is none.
    """
    kind, _, engine = name.partition(":")
    if kind == "deepface":
        from .deepface import DeepFaceAffect

        return DeepFaceAffect(engine or "onnx")
    from .classify import ImageAffect

    return ImageAffect(None if name == "geli" else name)


def face_detector(name: str = "cascade") -> FaceDetector:
    """
    Args:
        name: `cascade`, which needs no download; the path of a YuNet model (`.onnx`); or `deepface:` and one of
            DeepFace's detectors, such as `deepface:retinaface`, and where that is not onnx `:` and one of `ENGINES`,
            which has to be that of the classifier if it is DeepFace's too.

    Raises:
        ImportError, OSError, ValueError: it isn't there, or is none.
    """
    kind, _, which = name.partition(":")
    if kind == "deepface" and which:
        from .deepface import DeepFaceDetector

        which, _, engine = which.partition(":")
        return DeepFaceDetector(which, engine=engine or "onnx")
    from .detect import CascadeDetector, YuNetDetector

    if name == "cascade":
        return CascadeDetector()
    if Path(name).suffix == ".onnx":
        return YuNetDetector(name)
    raise ValueError(f"detector: expected cascade, a path to YuNet's .onnx, or deepface:NAME, found {name!r}")
