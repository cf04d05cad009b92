"""Registration of the models with transformers' Auto classes, and of the methods that need `geli_hf.hub`.

A hook on imports waits for the modules of the Auto classes. To register at once would make `import geli_hf` take 7.4 s
of processor time in place of 0.1 s (transformers 5, torch 2.15), since the Auto classes and the models import torch,
and `geli --help` would wait for that.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType


def _register_configuration(module: ModuleType) -> None:
    from transformers import AutoConfig

    config_class = getattr(module, module.__all__[0])
    AutoConfig.register(config_class.model_type, config_class)


def _register_reward_model(module: ModuleType) -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification

    for auto_class in (AutoModel, AutoModelForSequenceClassification):
        auto_class.register(module.GeliRewardConfig, module.GeliRewardModel)
    module.GeliRewardModel.push_to_hub = push_to_hub


def _register_face_classifier(module: ModuleType) -> None:
    from transformers import AutoModelForImageClassification

    AutoModelForImageClassification.register(module.FacialAffectConfig, module.FacialAffectModel)


def _register_image_processor(module: ModuleType) -> None:
    from transformers import AutoImageProcessor

    from .models.facial_affect.configuration_affect import FacialAffectConfig

    classes = {"torchvision": module.FacialAffectImageProcessor}
    AutoImageProcessor.register(FacialAffectConfig, image_processor_classes=classes)


def _complete_attribution(module: ModuleType) -> None:
    module.HindsightAttribution.push_to_hub = push_to_hub


def push_to_hub(self, *args, **kwargs):
    """Push this model to the Hub with its card; see `geli_hf.hub.models.push_to_hub`."""
    return import_module("geli_hf.hub.models").push_to_hub(self, *args, **kwargs)


def _import(*modules: str) -> Callable:
    return lambda _: [import_module(f"geli_hf.models.{module}") for module in modules]


# The action after the import of a module: of an Auto class, to import our modules; of one of ours, to register it. An
# import of ours may import the Auto class first. The action of that then finds our module under way, and does nothing.
ACTIONS = {
    "transformers.models.auto.configuration_auto": _import(
        "geli_reward.configuration_geli", "facial_affect.configuration_affect"
    ),
    "transformers.models.auto.modeling_auto": _import("geli_reward.modeling_geli", "facial_affect.modeling_affect"),
    "transformers.models.auto.image_processing_auto": _import("facial_affect.image_processing_affect"),
    "geli_hf.models.geli_reward.configuration_geli": _register_configuration,
    "geli_hf.models.facial_affect.configuration_affect": _register_configuration,
    "geli_hf.models.geli_reward.modeling_geli": _register_reward_model,
    "geli_hf.models.facial_affect.modeling_affect": _register_face_classifier,
    "geli_hf.models.facial_affect.image_processing_affect": _register_image_processor,
    "geli_hf.models.attribution": _complete_attribution,
}


class _AfterImport(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        action = ACTIONS.pop(fullname, None)
        if action is None:
            return None
        spec = find_spec(fullname)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            action(module)

        spec.loader.exec_module = exec_module
        return spec


def register_auto_classes() -> None:
    """Register the models now with the Auto classes that are imported already, and later with the others."""
    sys.meta_path.insert(0, _AfterImport())
    for name in [name for name in ACTIONS if name in sys.modules]:
        ACTIONS.pop(name)(sys.modules[name])
