"""What does `import fastapi_maintenance` cost after `import fastapi`, in time and in memory?

Each import is one of a process of its own, and the packages take turns. The memory is what the process holds more
after the import than before it. What has to be compiled is compiled in the first round, which does not count.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tables import print_medians

_SCRIPT = """
import gc, json, sys, time

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

begin = time.perf_counter()
import fastapi
first = time.perf_counter() - begin
before, known = resident(), set(sys.modules)
begin = time.perf_counter()
__import__(sys.argv[1])
second = time.perf_counter() - begin
held, new = resident() - before, set(sys.modules) - known
packages = sorted({name.split(".")[0] for name in new} - sys.stdlib_module_names)
figures = {"fastapi ms": first * 1e3, "more ms": second * 1e3, "MiB": held / 2**20, "modules": len(new)}
print(json.dumps({**figures, "packages": packages}))
"""
_ROUNDS, _QUICK_ROUNDS = 25, 7
_MODULES = {"ours": "fastapi_maintenance", "0.0.5": "fastapi_maintenance", "waygate": "waygate.fastapi"}


def measure(pythons: Mapping[str, str], *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Import each package in turn, print a table and what else is imported, and return the figures."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with TemporaryDirectory() as compiled:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range((_QUICK_ROUNDS if quick else _ROUNDS) + 1):
            for name, python in pythons.items():
                elsewhere = Path(python).parent  # where this clone cannot be imported by chance
                command = [python, "-c", _SCRIPT, _MODULES[name]]
                output = subprocess.run(command, check=True, capture_output=True, cwd=elsewhere, env=env).stdout
                if number:
                    found[name].append(json.loads(output))
    columns = {"fastapi ms": "{:.1f}", "more ms": "{:.1f}", "MiB": "{:.2f}", "modules": "{:.0f}"}
    print_medians("Import, after fastapi", columns, found)
    print(f"Packages that this library imports after fastapi: {', '.join(found['ours'][0]['packages'])}")
    return found
