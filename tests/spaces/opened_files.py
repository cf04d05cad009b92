"""Run an app and log the path of each file that Python opens for writing: `opened_files.py opened.txt app.py`.

A library's native code, such as a codec's, can open one unseen.
"""

import os
import runpy
import sys

_, told, script = sys.argv
out = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def tell(event: str, arguments: tuple) -> None:
    if event == "open":
        path, mode, flags = arguments
        if set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR):
            os.write(out, f"{path}\n".encode())


sys.addaudithook(tell)
sys.argv = [script]
runpy.run_path(script, run_name="__main__")
