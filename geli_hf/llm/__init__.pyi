from .answers import parse_contributions as parse_contributions, renormalise as renormalise
from .asking import LlmReport as LlmReport
from .backend import Answer as Answer, Backend as Backend, BackendError as BackendError, CallError as CallError
from .decomposer import LlmDecomposer as LlmDecomposer, merge_windows as merge_windows, split_windows as split_windows
from .endpoint import Endpoint as Endpoint
from .local import LocalModel as LocalModel
from .prompting import Prompt as Prompt
