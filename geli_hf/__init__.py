"""One rating in, a reward for every turn out.

Names are imported at their first use, so that `import geli_hf` stays as light as `import transformers`.
"""

from ._lazy import lazy_exports
from ._registration import register_auto_classes

__version__ = "0.1.0"

_EXPORTS = {
    "models.geli_reward.configuration_geli": ["GeliRewardConfig"],
    "models.geli_reward.modeling_geli": ["GeliRewardModel", "GeliRewardOutput"],
    "models.facial_affect.configuration_affect": ["FacialAffectConfig"],
    "models.facial_affect.modeling_affect": ["FacialAffectModel"],
    "models.facial_affect.image_processing_affect": ["FacialAffectImageProcessor"],
    "affect.classify": ["ImageAffect"],
    "sessions": ["SessionError", "add_signal", "session_features", "split_sessions", "validate_sessions"],
    "data": ["load_sessions", "read_report"],
    "models.published_head": ["convert_head"],
    "models.attribution": ["HindsightAttribution"],
    "training": ["PAPER", "GeliRewardArguments", "GeliRewardTrainer", "fit_hindsight"],
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)


register_auto_classes()
