"""One rating in, a reward for every turn out.

Names are imported at their first use, so that `import geli_hf` stays as light as `import transformers`.
"""

from ._lazy import lazy_exports
from ._registration import register_auto_classes

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy_exports(__name__, __file__)


register_auto_classes()
