"""What does `import fastapi_maintenance` cost after `import fastapi`, in time and in memory?

Each import is one of a process of its own, and the packages take turns. The memory is what the process holds more
after the import than before it. What has to be compiled is compiled in the first round, which does not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tables import print_table

__all__ = ["measure"]

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
held = resident() - before
new = sorted(set(sys.modules) - known)
print(json.dumps({"fastapi": first, "more": second, "held": held, "modules": new}))
"""
_ROUNDS, _QUICK_ROUNDS = 25, 7
_MODULES = {"ours": "fastapi_maintenance", "0.0.5": "fastapi_maintenance", "waygate": "waygate.fastapi"}


def run(python: str, module: str, compiled: str) -> dict[str, Any]:
    """Import a module in a new process of this Python, which keeps in a folder what it compiles."""
    elsewhere = Path(python).parent  # where this clone cannot be imported by chance
    env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    command = [python, "-c", _SCRIPT, module]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=elsewhere, env=env)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(pythons: Mapping[str, str], *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Import each package in turn, print a table and what else is imported, and return the figures."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with TemporaryDirectory() as compiled:
        for number in range((_QUICK_ROUNDS if quick else _ROUNDS) + 1):
            for name, python in pythons.items():
                figures = run(python, _MODULES[name], compiled)
                if number:
                    found[name].append(figures)
    rows = []
    scales = {"fastapi": 1e-3, "more": 1e-3, "held": 2**20}
    for name, results in found.items():
        cells = [f"{statistics.median(one[key] for one in results) / scale:.2f}" for key, scale in scales.items()]
        rows.append((name, [*cells, str(len(results[0]["modules"]))]))
    columns = ["package", "fastapi ms", "more ms", "held MiB", "modules"]
    print_table("Import, after fastapi", columns, rows)
    packages = {module.split(".")[0] for module in found["ours"][0]["modules"]}
    foreign = sorted(packages - sys.stdlib_module_names - {"fastapi_maintenance"})
    print(f"Packages that this library imports besides what fastapi does: {', '.join(foreign) or 'none'}")
    return found
