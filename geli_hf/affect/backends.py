"""Face classifiers and detectors by the names that a command line or a demo gives them."""

from .faces import FaceClassifier, FaceDetector


def face_classifier(name: str = "geli", device: str = "cpu") -> FaceClassifier:
    """Load a face classifier by name.

    Args:
        name: `geli`, the one that comes with the package; `deepface`; or the folder, or the name on the Hub, of an
            image classifier whose labels are emotions.
        device: of an image classifier; DeepFace chooses its own.

    Raises:
        ImportError, OSError, RuntimeError, ValueError: see `DeepFaceAffect` and `ImageAffect`; or a device for
            DeepFace.
    """
    if name == "deepface":
        if device != "cpu":
            raise ValueError(f"device: deepface takes none, found {device!r}")
        from .deepface import DeepFaceAffect

        return DeepFaceAffect()
    from .classify import ImageAffect

    return ImageAffect(None if name == "geli" else name, device=device)


def face_detector(name: str = "cascade") -> FaceDetector:
    """Load a face detector by name.

    Args:
        name: `cascade`, which needs no download; or the path of a YuNet model (`.onnx`).

    Raises:
        ImportError, OSError, ValueError: see `CascadeDetector` and `YuNetDetector`.
    """
    from .detect import CascadeDetector, YuNetDetector

    return CascadeDetector() if name == "cascade" else YuNetDetector(name)
