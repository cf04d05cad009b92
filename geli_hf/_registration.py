"""Tell transformers' Auto classes of our models, without importing torch before somebody needs it.

Importing `AutoModel` takes seconds, `import geli_hf` must not. So once the module of an Auto class has been imported,
ours is imported too; and once ours has been imported, by whichever way, it is registered.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec


def _register_config(module: str, name: str) -> None:
    from transformers import AutoConfig

    config = getattr(import_module(f"geli_hf.{module}"), name)
    AutoConfig.register(config.model_type, config)


def _late(module: str, name: str) -> Callable:
    """A method of a model that is more than the files know which travel with it: without the package it has the one
    of transformers."""

    def method(self, *args, **kwargs):
        return getattr(import_module(f"geli_hf.{module}"), name)(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, f"See `geli_hf.{module}.{name}`."
    return method


def _register_reward_model() -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification

    from .models.geli_reward.configuration_geli import GeliRewardConfig
    from .models.geli_reward.modeling_geli import GeliRewardModel

    for auto_class in (AutoModel, AutoModelForSequenceClassification):
        auto_class.register(GeliRewardConfig, GeliRewardModel)
    GeliRewardModel.push_to_hub = _late("hub.models", "push_reward_model")


def _register_affect_model() -> None:
    from transformers import AutoModelForImageClassification

    from .models.facial_affect.configuration_affect import FacialAffectConfig
    from .models.facial_affect.modeling_affect import FacialAffectModel

    AutoModelForImageClassification.register(FacialAffectConfig, FacialAffectModel)
    FacialAffectModel.push_to_hub = _late("hub.models", "push_face_classifier")


def _register_image_processor() -> None:
    from transformers import AutoImageProcessor

    from .models.facial_affect.configuration_affect import FacialAffectConfig
    from .models.facial_affect.image_processing_affect import FacialAffectImageProcessor

    classes = {"torchvision": FacialAffectImageProcessor}
    AutoImageProcessor.register(FacialAffectConfig, image_processor_classes=classes)


def _import(*modules: str) -> None:
    for module in modules:
        import_module(f"geli_hf.{module}")


_REWARD, _AFFECT = "models.geli_reward", "models.facial_affect"
# What to do after a module has been imported. If ours is the one that is importing the Auto class, the imports in the
# first three entries find it under way and return at once.
_AFTER = {
    "transformers.models.auto.configuration_auto": lambda: _import(
        f"{_REWARD}.configuration_geli", f"{_AFFECT}.configuration_affect"
    ),
    "transformers.models.auto.modeling_auto": lambda: _import(
        f"{_REWARD}.modeling_geli", f"{_AFFECT}.modeling_affect"
    ),
    "transformers.models.auto.image_processing_auto": lambda: _import(f"{_AFFECT}.image_processing_affect"),
    f"geli_hf.{_REWARD}.configuration_geli": lambda: _register_config(
        f"{_REWARD}.configuration_geli", "GeliRewardConfig"
    ),
    f"geli_hf.{_AFFECT}.configuration_affect": lambda: _register_config(
        f"{_AFFECT}.configuration_affect", "FacialAffectConfig"
    ),
    f"geli_hf.{_REWARD}.modeling_geli": _register_reward_model,
    f"geli_hf.{_AFFECT}.modeling_affect": _register_affect_model,
    f"geli_hf.{_AFFECT}.image_processing_affect": _register_image_processor,
}


class _AfterImport(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        action = _AFTER.pop(fullname, None)
        if action is None:
            return None
        spec = find_spec(fullname)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            action()

        spec.loader.exec_module = exec_module
        return spec


def register_auto_classes() -> None:
    sys.meta_path.insert(0, _AfterImport())
    for name in [name for name in _AFTER if name in sys.modules]:
        _AFTER.pop(name)()
