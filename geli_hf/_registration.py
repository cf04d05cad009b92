"""Tell transformers' Auto classes of our models, without importing torch before somebody needs it.

Importing `AutoModel` takes seconds, `import geli_hf` must not. So once the module of an Auto class has been imported,
ours is imported too; and once ours has been imported, by whichever way, it is registered.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec


def _register_config() -> None:
    from transformers import AutoConfig

    from .configuration_geli import GeliRewardConfig

    AutoConfig.register(GeliRewardConfig.model_type, GeliRewardConfig)


def _register_model() -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification

    from .configuration_geli import GeliRewardConfig
    from .modeling_geli import GeliRewardModel

    for auto_class in (AutoModel, AutoModelForSequenceClassification):
        auto_class.register(GeliRewardConfig, GeliRewardModel)


# What to do after a module has been imported. If ours is the one that is importing the Auto class, the import in the
# first and third line finds it under way and returns at once.
_AFTER = {
    "transformers.models.auto.configuration_auto": lambda: import_module("geli_hf.configuration_geli"),
    "geli_hf.configuration_geli": _register_config,
    "transformers.models.auto.modeling_auto": lambda: import_module("geli_hf.modeling_geli"),
    "geli_hf.modeling_geli": _register_model,
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
