"""Put small faults, mutants, into the core modules and the stores, and count the ones that no test notices.

It works on a copy of the project in the given folder. It fails if the tests notice too few, or if `survivors.md` beside
it does not explain one that survives.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.md")
COPIED = [
    *("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "docs", "examples", "fastapi_maintenance"),
    *("noxfile.py", "stubs", "tests", "zensical.toml"),
]
ENOUGH = 97.0  # per cent
KILLED = {1, 2, 3, 4}  # what pytest returns if a test failed, or a module could not be imported
TIMEOUTS = {-24, 24, 36, 152, 255}  # what mutmut records if they did not end
TIME_LIMIT = 300  # seconds
NOT_INSTALLED = "tests/middleware/test_other_frameworks.py"
ARGUMENTS = ("-p", "tests.mutation.order", "-p", "no:cacheprovider", "--show-capture=no", f"--ignore={NOT_INSTALLED}")


@dataclass(frozen=True)
class Part:
    """Some modules, and the tests that are run against their mutants."""

    modules: dict[str, tuple[str, ...]]
    """The modules, each with its own tests, which run again in a new process for each mutant that survived."""
    tests: tuple[str, ...]
    """The files and folders of tests that run first; mutmut selects the tests that execute a mutant."""
    chosen: str
    """An expression for `pytest -m` that selects tests."""
    kept: str
    """An expression for `pytest -k` that leaves out slow tests, and those that cannot work on mutated functions."""


PARTS = {
    "core": Part(
        modules={
            "state": ("test_state",),
            "codec": ("test_codec",),
            "predicates/clients": ("predicates/test_clients", "predicates/test_predicates", "cli/test_routes"),
            "predicates/combinators": (
                *("predicates/test_laws", "test_openapi", "cli/test_routes", "middleware/test_bodies"),
            ),
            "predicates/exemption": (
                *("middleware/test_failures", "middleware/test_asked_again", "predicates/test_dependency"),
            ),
            "predicates/methods": ("predicates/test_predicates", "cli/test_routes"),
            "predicates/paths": ("predicates", "routing/test_hints", "cli/test_routes"),
            "predicates/values": ("predicates/test_predicates", "cli/test_routes"),
            "predicates/in_advance": (
                "predicates/test_in_advance",
                "test_openapi",
                "routing/test_hints",
                "cli/test_routes",
            ),
            "middleware": ("middleware", "routing/test_hints", "switch"),
            "_switch/settings": ("middleware/test_middleware",),
            "_routing/layers": ("routing",),
            "_routing/finder": ("routing", "middleware/test_telemetry"),
            "_routing/documentation": ("routing/test_ways_in", "routing/test_left_to_app"),
            "_helpers/framework": ("routing",),
            "_routing/left_to_app": ("routing", "predicates/test_scope", "switch/test_forced", "cli/test_routes"),
            "_routing/routes": ("routing", "test_openapi", "cli/test_routes"),
            "_routing/traces": ("middleware/test_telemetry", "middleware/test_failing_telemetry"),
            "backends/base": ("backends", "middleware/test_failures"),
            "backends/cached": ("backends/test_cached",),
            "backends/env": ("backends/test_env",),
            "backends/file": ("backends",),
            "backends/memory": ("backends", "switch/test_drain"),
            "backends/url": ("backends/test_url", "test_control"),
        },
        tests=(
            *("backends", "middleware", "predicates", "routing", "project/test_spec", "switch/test_forced"),
            *(
                "cli/test_durations",
                "cli/test_routes",
                "test_checks",
                "test_codec",
                "test_control",
                "test_openapi",
                "test_state",
            ),
        ),
        chosen="not servers",
        # mutmut renames functions and hides their signatures; known layers are recognised by name, an app by signature
        kept="not uvicorn and not fuzz and not (wrong_place and call2) and not [maintenance"
        " and not ((layer_that_is_known and (itself or mounted)) or (layer_that_may_answer and lambda and None1))",
    ),
    "stores": Part(
        modules={
            "backends/redis": ("backends/test_stores", "backends/test_redis", "backends/test_url"),
            "backends/redis_workers": ("backends/test_stores", "backends/test_redis"),
            "backends/sqlalchemy/backend": ("backends/test_stores", "backends/test_sqlalchemy", "backends/test_url"),
            "backends/sqlalchemy/postgresql": ("backends/test_stores", "backends/test_sqlalchemy"),
            "backends/sqlalchemy/table": (
                *("backends/test_stores", "backends/test_sqlalchemy", "backends/test_alembic"),
            ),
        },
        tests=tuple(
            f"backends/test_{name}" for name in ("agreement", "alembic", "stores", "redis", "sqlalchemy", "url")
        ),
        chosen="servers or not servers",
        kept=(
            "not many_processes and not every_backend and not a_process_ends_although and not a_cluster_whose"
            " and not as_the_page_says"
            " and not [cluster and not redis-text and not ([psycopg and not watch and not by_hand)"
        ),
    ),
}


def prepare(part: Part, folder: Path) -> None:
    """Copy the project, and configure mutmut there."""
    # Python checks a place to import from only once, and mutmut creates this one while it runs.
    folder.joinpath("mutants").mkdir(parents=True, exist_ok=True)
    for old in folder.glob("mutants/**/*.py*"):  # of modules and tests that are gone
        if not ROOT.joinpath(str(old.relative_to(folder / "mutants")).removesuffix(".meta")).exists():
            old.unlink()
    for name in COPIED:
        source, copy = ROOT / name, folder / name
        if source.is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy)
    settings = {
        "source_paths": ["fastapi_maintenance"],
        "only_mutate": [f"fastapi_maintenance/{module}.py" for module in part.modules],
        "also_copy": [name for name in COPIED if name not in {"fastapi_maintenance", "tests"}],
        "pytest_add_cli_args_test_selection": paths_of(part.tests),
        "pytest_add_cli_args": [*ARGUMENTS, "-m", part.chosen, "-k", part.kept],
        "timeout_constant": 15.0,
        "timeout_multiplier": 3.0,
        "use_git_change_detection": False,
        "on_dependency_change": "ignore",
    }
    written = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    project = ROOT.joinpath("pyproject.toml").read_text("utf-8")
    folder.joinpath("pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{written}", "utf-8")


def run(part: Part, folder: Path, workers: int) -> dict[str, int | None]:
    """Return the exit status of pytest for each mutant; None if no test executes it."""
    prepare(part, folder)
    paths = {
        path: folder / "mutants" / f"{path}.meta" for path in map("fastapi_maintenance/{}.py".format, part.modules)
    }
    for path in paths.values():
        if path.exists():
            forget_survivors(path)
    quick = {"HYPOTHESIS_PROFILE": "quick", "EVENT_LOOPS": "asyncio"}
    environment = {**quick, **os.environ, "PYTHONPATH": str(folder / "mutants")}
    subprocess.run([mutmut(), "run", f"--max-children={workers}"], cwd=folder, env=environment, check=True)
    found: dict[str, int | None] = {}
    for (module, tests), path in zip(part.modules.items(), paths.values(), strict=True):
        known = json.loads(path.read_text("utf-8"))
        codes = known["exit_code_by_key"]
        survived = [mutant for mutant, code in codes.items() if code not in KILLED | TIMEOUTS]
        left = [mutant for mutant in survived if not is_explained(mutant, folder)]
        command = [sys.executable, *("-m", "pytest", "-x", "-q", *ARGUMENTS, "-k", part.kept), *paths_of(tests)]
        with ThreadPoolExecutor(workers) as pool:
            codes |= zip(left, pool.map(partial(run_alone, command, folder, environment), left), strict=True)
        path.write_text(json.dumps(known), "utf-8")
        print(f"{module}: {len(left)} run again")
        found |= codes
    return found


def forget_survivors(path: Path) -> None:
    """Forget the mutants that survived an earlier run: there may be new tests."""
    known = json.loads(path.read_text("utf-8"))
    codes = known["exit_code_by_key"]
    known["exit_code_by_key"] = {mutant: code if code in KILLED else None for mutant, code in codes.items()}
    path.write_text(json.dumps(known), "utf-8")


def run_alone(command: list[str], folder: Path, environment: dict[str, str], mutant: str) -> int:
    """Return the exit status of pytest in a new process that has this mutant from its beginning.

    The processes that mutmut forks have already imported the tests, and called functions for tables of parameters.
    """
    given = environment | {"MUTANT_UNDER_TEST": mutant}
    try:
        done = subprocess.run(
            command, cwd=folder / "mutants", env=given, capture_output=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return max(TIMEOUTS)
    return done.returncode


def paths_of(tests: tuple[str, ...]) -> list[str]:
    """Return the files and folders of these tests.

    Raises:
        FileNotFoundError: One does not exist any more.
    """
    found = []
    for name in tests:
        path = ROOT / "tests" / name
        found.append(path if path.is_dir() else path.with_suffix(".py").resolve(strict=True))
    return [str(path.relative_to(ROOT)) for path in found]


def mutmut() -> str:
    """Return the path of the command."""
    return str(Path(sys.executable).with_name("mutmut"))


def module_of(mutant: str) -> str:
    """Return the module of a mutant, such as `codec` or `backends.file`."""
    return mutant.rpartition(".")[0].removeprefix("fastapi_maintenance.")


@cache
def change_of(mutant: str, folder: Path) -> str:
    """Return the lines that a mutant changes, as a diff without context."""
    shown = subprocess.run([mutmut(), "show", mutant], cwd=folder, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shown.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines)


@cache
def explained() -> list[tuple[str, re.Pattern[str]]]:
    """Return the modules and lines that `survivors.md` explains."""
    lines = re.findall(r"^- (\S+): `(.*)`: .", SURVIVORS.read_text("utf-8"), re.MULTILINE)
    return [(module.replace("/", "."), re.compile(re.escape(line).replace("…", ".*"))) for module, line in lines]


def is_explained(mutant: str, folder: Path) -> bool:
    """Return whether `survivors.md` explains why no test notices the line of a mutant."""
    changed = [line[2:].partition("  # ")[0] for line in change_of(mutant, folder).splitlines() if line[0] == "+"]
    return any(module == module_of(mutant) and pattern.fullmatch("\n".join(changed)) for module, pattern in explained())


def main() -> int:
    """Run all or some parts, and print the score of each module and the mutants that survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to work; it keeps the results of earlier runs")
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS], metavar="part", help="core or stores; both by default"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    totals: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    unexplained = 0
    for name in options.parts or PARTS:
        folder = options.folder.resolve() / name
        for mutant, code in run(PARTS[name], folder, options.workers).items():
            totals[module_of(mutant)] += 1
            if code in KILLED | TIMEOUTS:
                noticed[module_of(mutant)] += 1
                continue
            change = change_of(mutant, folder)
            known = is_explained(mutant, folder)
            unexplained += not known
            print(f"\n{mutant} ({code}){'' if known else ', which is not explained'}\n{change}")
    print()
    for module, total in totals.items():
        print(f"{module:24} {noticed[module]:5} of {total:5} noticed")
    score = 100 * noticed.total() / max(1, totals.total())
    print(f"{'all':24} {noticed.total():5} of {totals.total():5} noticed: {score:.1f} %; {unexplained} not explained")
    return 0 if score >= ENOUGH and not unexplained else 1


if __name__ == "__main__":
    sys.exit(main())
