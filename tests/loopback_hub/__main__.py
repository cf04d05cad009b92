"""A Hub on 127.0.0.1 to try things by hand; it tells what to set in the shell that asks it."""

import argparse
import contextlib
import tempfile
from pathlib import Path

from . import ACCOUNTS, Hub


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.loopback_hub", description=__doc__)
    parser.add_argument("--port", type=int, default=8899)
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a folder that is removed)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="loopback_hub_") as temporary,
        Hub(options.folder or temporary, options.port) as hub,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1")
        for token, account in ACCOUNTS.items():
            rights = "reads and writes" if account.can_write else "reads"
            names = ", ".join((account.user, *account.organisations))
            print(f"export HF_TOKEN={token}  # {rights} {names}", flush=True)
        hub.wait()


main()
