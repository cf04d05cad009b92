"""A function in a fresh process: what is told by the environment is read there at import, as for everybody.

    in_fresh_process(load, folder, {"HF_ENDPOINT": hub.url}, repo_id="owner/model")

The function stands alone: it imports what it needs, takes and returns what JSON can say. `error_of` is there for it.
"""

import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

# The package is hidden even where it is installed: nothing else of the interpreter is changed.
WITHOUT_GELI_HF = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "geli_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
try:
    import geli_hf
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("geli_hf can be imported")
import json
"""


def error_of(call, *args, **kwargs) -> str | None:
    """Return class and message of the error that a call raises."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def in_fresh_process(
    function, folder: Path, environment: dict[str, str | None], *, helpers=(), geli_hf: bool = True, **arguments
):
    """Run the function in a fresh process and return its result.

    Args:
        folder: to be in; it isn't importable from.
        environment: of the process, beside this one's. A name with None is taken out.
        helpers: other functions that it calls.
        geli_hf: whether the package can be imported.
        arguments: of the function.
    """
    tests = str(Path(__file__).parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])}
    env = {name: value for name, value in (env | environment).items() if value is not None}
    sources = [textwrap.dedent(inspect.getsource(each)) for each in (error_of, *helpers, function)]
    # What it imports is no garbage, and looking for some takes a fifth of the time.
    sources.insert(0, "import gc\ngc.disable()")
    # It leaves at once: to take down all that torch and transformers brought takes a second or two, and tells nothing.
    call = f"import json, os\nprint(json.dumps({function.__name__}(**{arguments!r})), flush=True)\nos._exit(0)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(["" if geli_hf else WITHOUT_GELI_HF, *sources, call])],
        capture_output=True,
        text=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout, "transformers asked whether to trust the code: " + done.stdout
    return json.loads(done.stdout.splitlines()[-1])
