"""One rating in, a reward for every turn out.

Names are imported when they are first used, so that `import geli_hf` stays as light as `import transformers`.
"""

from importlib import import_module

from ._registration import register_auto_classes

__version__ = "0.1.0"

_EXPORTS = {
    "configuration_geli": ["GeliRewardConfig"],
    "modeling_geli": ["GeliRewardModel", "GeliRewardOutput"],
    "configuration_affect": ["FacialAffectConfig"],
    "modeling_affect": ["FacialAffectModel"],
    "image_processing_affect": ["FacialAffectImageProcessor"],
    "affect.classifier": ["ImageAffect"],
    "sessions": ["SessionError", "add_signal", "session_features", "split_sessions", "validate_sessions"],
    "data": ["load_sessions", "read_report"],
    "published_head": ["convert_head"],
    "training": ["PAPER", "GeliRewardArguments", "GeliRewardTrainer", "HindsightAttribution", "fit_hindsight"],
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


register_auto_classes()
