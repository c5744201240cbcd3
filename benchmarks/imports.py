"""What does `import fastapi_maintenance` cost after `import fastapi`, in time and in memory?

Each import is one of a process of its own, and the packages take turns. The memory is what the process holds more
after the import than before it; the size of the objects is what Python allocated for them, seen in other processes
since looking takes time. What has to be compiled is compiled in the first round, which does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from tables import print_table
from workers import parse_peers

_SCRIPT = """
import gc, json, sys, time, tracemalloc
module, traced = sys.argv[1], sys.argv[2] == "traced"

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

begin = time.perf_counter()
import fastapi
first = time.perf_counter() - begin
before, known = resident(), set(sys.modules)
if traced:
    tracemalloc.start()
begin = time.perf_counter()
__import__(module)
second = time.perf_counter() - begin
size = tracemalloc.get_traced_memory()[0] if traced else 0
held = resident() - before
new = sorted(set(sys.modules) - known)
print(json.dumps({"fastapi": first, "more": second, "held": held, "size": size, "modules": new}))
"""
_IN_USE = "ours, its middleware"
_MODULES = {
    "ours": "fastapi_maintenance",
    _IN_USE: "fastapi_maintenance.middleware",
    "0.0.5": "fastapi_maintenance",
    "waygate": "waygate.fastapi",
}


def run(python: str, module: str, how: str, compiled: str) -> dict[str, Any]:
    """Import a module in a new process of this Python, which keeps in a folder what it compiles."""
    command = [python, "-c", _SCRIPT, module, how]
    elsewhere = Path(python).parent  # where this clone cannot be imported by chance
    env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=elsewhere, env=env)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(pythons: dict[str, str], rounds: int, compiled: str) -> dict[str, list[dict[str, Any]]]:
    """Import each package in turn, the first time to warm up."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, python in pythons.items():
            timed, traced = (run(python, _MODULES[name], how, compiled) for how in ("timed", "traced"))
            if number:
                found[name].append({**timed, "size": traced["size"]})
    return found


def main() -> None:
    """Measure, and print a table and what is imported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="append", default=[], help="name=path of its Python; as often as wanted")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    pythons = parse_peers(options.peer)
    rounds = 7 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as compiled:
        found = measure({**pythons, _IN_USE: pythons["ours"]}, rounds, compiled)
    rows = []
    for name, results in found.items():
        median = {key: statistics.median(result[key] for result in results) for key in results[0] if key != "modules"}
        times = [f"{median[key] * 1000:.1f}" for key in ("fastapi", "more")]
        sizes = [f"{median[key] / 2**20:.2f}" for key in ("held", "size")]
        rows.append((name, [*times, *sizes, str(len(results[0]["modules"]))]))
    columns = ["package", "fastapi ms", "more ms", "held MiB", "objects MiB", "modules"]
    print_table("Import, after fastapi", columns, rows)
    packages = {module.split(".")[0] for module in found[_IN_USE][0]["modules"]}
    foreign = sorted(packages - sys.stdlib_module_names - {"fastapi_maintenance"})
    print(f"Packages that this library imports besides what fastapi does: {', '.join(foreign) or 'none'}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
