"""One rating in, a reward for every turn out.

Names are imported when they are first used, so that `import geli_hf` stays as light as `import transformers`.
"""

from ._lazy import lazy_exports
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

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)


register_auto_classes()
