"""The commands of examples/README.md, which the tests of each script run with settings that make minutes seconds."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shown(script: str) -> list[str]:
    """Return the words behind the script of this name; its configuration is found from any folder."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    pattern = rf"^(?:python|accelerate launch) examples/(?:recipes/)?{script}\.py(.*)$"
    [command] = re.findall(pattern, text, re.MULTILINE)
    words = shlex.split(command)
    return [str(ROOT / word) if word.startswith("examples/") else word for word in words]
