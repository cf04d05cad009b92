"""The commands that examples/README.md shows. Each script's tests run its command, with settings after it that make
minutes seconds."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shown(script: str) -> list[str]:
    """What stands on the page behind the script of this name; its configuration is found from anywhere."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(rf"^(?:python|accelerate launch) examples/{script}\.py(.*)$", text, re.MULTILINE)
    words = shlex.split(command)
    return [str(ROOT / word) if word.startswith("examples/") else word for word in words]
