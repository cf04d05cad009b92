"""Face classifiers and detectors by the names that a command line or a demo gives them."""

from pathlib import Path

from .faces import FaceClassifier, FaceDetector


def face_classifier(name: str = "geli") -> FaceClassifier:
    """Load a face classifier by name.

    Args:
        name: `geli`, the one that comes with the package; `deepface`, or `deepface:` and an engine (`onnx`, `pytorch`,
            `tensorflow`); or the folder, or the name on the Hub, of an image classifier whose labels are emotions.

    Raises:
        ImportError, OSError, RuntimeError, ValueError: see `DeepFaceAffect` and `ImageAffect`.
    """
    kind, _, engine = name.partition(":")
    if kind == "deepface":
        from .deepface import DeepFaceAffect

        return DeepFaceAffect(engine or "onnx")
    from .classify import ImageAffect

    return ImageAffect(None if name == "geli" else name)


def face_detector(name: str = "cascade") -> FaceDetector:
    """Load a face detector by name.

    Args:
        name: `cascade`, which needs no download; the path of a YuNet model (`.onnx`); or `deepface:` and the name of
            one of DeepFace's detectors, such as `deepface:retinaface`. An engine other than onnx follows after `:`; it
            has to be the classifier's if that is DeepFace's too.

    Raises:
        ImportError, OSError, RuntimeError, ValueError: see `CascadeDetector`, `YuNetDetector` and `DeepFaceDetector`.
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
