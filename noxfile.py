"""Everything that is promised about this project, one session a promise.

`python noxfile.py` runs all checks, `python noxfile.py -s quick` those that take less than a minute, and
`python noxfile.py -s demo` shows the library at work. All need nothing but Python with pip: where nox is missing, it is
installed into a virtual environment of its own, under `.nox`.
"""

# /// script
# dependencies = ["nox[uv]"]
# ///

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent


def run_with_own_nox() -> int:
    """Install nox under `.nox`, unless it is there, and run this file with it."""
    home = HERE / ".nox" / "bootstrap"
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "nox[uv]"], check=True)
    return subprocess.run([python, __file__, *sys.argv[1:]], check=False).returncode


try:
    import nox
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    sys.exit(run_with_own_nox())

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
WITHOUT_POSTGRESQL = {"3.15"}  # as the markers of the group `test` have it
LAST_FLAT = "fastapi==0.136.3"
"""The last release before included routers became nested."""

PEERS = {
    "0.0.5": ["fastapi-maintenance==0.0.5", LAST_FLAT, "uvicorn[standard]"],
    "waygate": ["waygate[all]==0.2.0", "fastapi", "uvicorn[standard]"],
}
"""What users would pick instead, each with the newest FastAPI on which it answers right."""

RUN_ONCE = {
    "schema": "tests/router/test_router_schema.py",
    "frameworks": "tests/middleware/test_other_frameworks.py",
    "recipes": "tests/project/test_recipes.py",
    "exemptions": "tests/project/test_exemptions.py",
    "clients": "tests/project/test_clients.py",
    "telemetry": "tests/telemetry",
}
"""The groups of what only the whole tests need, and the tests that need it."""

SLOW = [
    *("tests/browser", "tests/project", "tests/switch", "tests/telemetry", "tests/testing"),
    *(
        "tests/backends/test_file.py",
        "tests/cli/test_run.py",
        "tests/cli/test_drain.py",
        "tests/cli/test_workers.py",
        "tests/middleware/test_uvicorn.py",
        "tests/router/test_router_schema.py",
    ),
]
"""The tests that wait, or start processes, and are left out of the quick checks."""

FORMATS = {
    "dependabot": "dependabot.yml",
    "github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "github-workflows": "workflows/*.yml",
}
"""The schemas of the files below `.github`."""

PACKAGES = "tests/packages"
"""The tests with packages that would make each other session install half a gigabyte."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"  # uv installs in a tenth of the time
nox.options.download_python = "never"  # the tests run on each Python that is installed
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
# The oldest Python has the lowest versions of all else; with the newest it is run by name, `tests-3.11`.
nox.options.sessions = [
    *("lint", "floors", "types", "package", "docs", "browser"),
    *(f"tests-{python}" for python in PYTHONS[1:]),
    *("tests_lowest", "coverage"),
]

# Pythons that pyenv has, which its own `python3.x` commands hide unless they are chosen.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([*map(str, PYENV.glob("versions/3.*/bin")), os.environ["PATH"]])
os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
os.environ.setdefault("PIP_NO_COMPILE", "1")  # what is not imported need not be compiled
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that tests start compiles all anew
INSTALLED = [python for python in PYTHONS if shutil.which(f"python{python}")]
WHOLE_ON = ([python for python in INSTALLED if python not in WITHOUT_POSTGRESQL] or INSTALLED or PYTHONS)[-1]
"""The Python that runs the whole tests: the newest that can run all of them."""


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def run_tests(session: nox.Session, *requirements: str, whole: bool = False) -> None:
    """Run the tests with these requirements.

    The whole, on both event loops, is run and measured once, and leaves data for the session `coverage`. What starts
    servers depends on neither FastAPI nor, but for its speed, on Python.
    """
    once = [requirement for name in RUN_ONCE for requirement in group(name)] if whole else []
    session.install(*group("test"), *once, "-e", ".", *requirements)
    profile = os.environ.get("HYPOTHESIS_PROFILE", "quick" if whole else "brief")
    workers = str(2 * (os.cpu_count() or 1) + 1)  # many tests wait
    measuring = ["--cov", "--cov-report=", "--cov-fail-under=0"] if whole else []
    parts = [("not servers", "thread"), ("servers", "greenlet")]  # those that start servers alone come by greenlets
    for marks, concurrency in parts if whole else parts[:1]:
        session.run(
            *("pytest", "--numprocesses", workers, "--dist", "worksteal", *measuring),
            *(f"--ignore={path}" for path in ["tests/browser", PACKAGES, *([] if whole else RUN_ONCE.values())]),
            *("-m", marks, *session.posargs),
            env={
                "HYPOTHESIS_PROFILE": profile,
                "EVENT_LOOPS": "asyncio trio" if whole else "asyncio",
                "COVERAGE_FILE": f".coverage.{session.name}.{concurrency}",
                "COVERED_CONCURRENCY": concurrency,
            },
            success_codes=[0, 5] if session.posargs else [0],  # 5: none of the tests that are named is in this part
        )


@nox.session
def lint(session: nox.Session) -> None:
    """The code is in one style, and free of what ruff knows to be wrong; so are the workflows, for zizmor."""
    session.install(*group("lint"))
    check_style(session)
    github = HERE / ".github"
    session.run("zizmor", "--offline", "--no-progress", "--strict-collection", str(github))
    for schema, files in FORMATS.items():
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, github.glob(files)))
    session.run("pre-commit", "validate-config", ".pre-commit-config.yaml")


def check_style(session: nox.Session) -> None:
    """Check the style of the code."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def floors(session: nox.Session) -> None:
    """An import only ever goes down the floors of the house."""
    session.install(*group("floors"), "-e", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Every line is typed, wrong uses of the library are refused, and the stubs agree with the real packages.

    What users see is checked by the checkers that they may have: every public type is known, mypy, pyright and pyrefly
    agree on what is right and wrong, and ty and zuban accept what is right.
    """
    session.install(*group("types"), "-e", ".")
    session.run("mypy")
    for stub in sorted(path.name for path in HERE.joinpath("stubs").iterdir() if path.is_dir()):
        session.run("stubtest", stub, "--ignore-missing-stub", env={"MYPYPATH": "stubs"})
    session.run("pyright", "--verifytypes", "fastapi_maintenance", "--ignoreexternal", silent=True)
    session.run("pyright")
    session.run("zuban", "mypy", "tests/typing")
    # These report no expected error that is gone, and ty knows no codes of mypy: compare the lines that they refuse.
    lines = HERE.joinpath("tests", "typing", "api.py").read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# type: ignore" in line}
    by_pyrefly = refused(session, "pyrefly", "check", "--enabled-ignores", "pyrefly", "--output-format", "min-text")
    seen = {
        number for number in wrong if "# not by pyrefly" not in lines[number - 1]
    }  # it looks into no overload there
    if by_pyrefly != seen:
        session.error(f"pyrefly accepts a wrong use or refuses a right one in lines {by_pyrefly ^ seen}")
    by_ty = refused(session, "ty", "check", "--output-format", "concise")
    if not set() < by_ty <= wrong:
        session.error(f"ty refuses a right use in lines {by_ty - wrong}, or none at all")


def refused(session: nox.Session, *command: str) -> set[int]:
    """Return the lines of the typing tests that a checker refuses."""
    output = str(session.run(*command, "tests/typing", silent=True, success_codes=[1]))
    return {int(line) for line in re.findall(r"^(?:ERROR )?tests/typing/api\.py:(\d+):", output, re.MULTILINE)}


@nox.session
def quick(session: nox.Session) -> None:
    """Style, floors, types and the fast tests, in less than a minute once all is installed."""
    session.install(*group("lint"), *group("floors"), *group("types"), "-e", ".")
    check_style(session)
    session.run("lint-imports", "--no-cache")
    session.run("mypy")
    session.run(
        *("pytest", "--quiet", "--numprocesses", str(os.cpu_count() or 1), "--dist", "worksteal", "-m", "not servers"),
        *(*(f"--ignore={path}" for path in [PACKAGES, *SLOW]), *session.posargs),
        env={"HYPOTHESIS_PROFILE": "brief", "EVENT_LOOPS": "asyncio"},
    )


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests pass on every supported Python that is installed, with the newest FastAPI for it."""
    run_tests(session, "--upgrade", "fastapi", whole=session.python == WHOLE_ON)


@nox.session(python=PYTHONS[0], venv_backend="virtualenv")  # only pip reports what it would install
def tests_lowest(session: nox.Session) -> None:
    """The tests pass with the lowest versions that are allowed of all that is needed, FastAPI included."""
    pins = [requirement.replace(">=", "==") for requirement in allowed()]
    report = Path(session.create_tmp()) / "report.json"
    session.install(*pins, "--dry-run", "--ignore-installed", "--quiet", "--report", str(report))
    chosen = {found["metadata"]["name"]: found for found in json.loads(report.read_text())["install"]}
    withdrawn = [name for name, found in chosen.items() if found.get("is_yanked")]
    if withdrawn:
        session.error(f"withdrawn, so it cannot be the lowest that is allowed: {', '.join(withdrawn)}")
    run_tests(session, *pins)


def allowed() -> list[str]:
    """Return what the package and its extras need, each with the lowest version that is allowed."""
    project = PYPROJECT["project"]
    return [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]


@nox.session
def tests_last_flat(session: nox.Session) -> None:
    """The tests pass with the last FastAPI whose included routers are flat, as the oldest has them; by name only."""
    run_tests(session, LAST_FLAT)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation builds into `site`, and no link, anchor or name in it leads nowhere."""
    session.install(*group("docs"))
    session.run("zensical", "build", "--clean", "--strict")


@nox.session
def browser(session: nox.Session) -> None:
    """The maintenance page and the documentation are what they should be in a real browser, on a screen and a phone."""
    if not any(map(shutil.which, BROWSERS)):
        session.skip(f"no browser to look at the pages with: install one of {', '.join(BROWSERS)}")
    session.install(*group("browser"), "-e", ".")
    session.run("pytest", "--numprocesses", "2", "--dist", "loadfile", "tests/browser", *session.posargs)


@nox.session
def pictures(session: nox.Session) -> None:
    """The pictures of the documents are taken anew, by the tests of what they show."""
    session.install(*group("browser"), "-e", ".")
    session.run("pytest", "tests/browser", "-k", "picture", env={"PICTURES": str(HERE / "docs")})
    session.run("python", "-m", "tests.pictures")


@nox.session
def package(session: nox.Session) -> None:
    """What is built is complete, has true metadata, and works installed alone; `-- dist` copies it to that folder."""
    folder = Path(session.create_tmp())
    shutil.rmtree(folder / "dist", ignore_errors=True)
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(folder / "dist"), silent=True)
    built = sorted(map(str, folder.joinpath("dist").iterdir()))
    session.run("twine", "check", "--strict", *built)
    alone = folder / "alone"
    session.run("python", "-m", "venv", "--clear", str(alone))
    python = str(alone / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run(
        python, "-m", "pip", "install", "--quiet", *(path for path in built if path.endswith(".whl")), external=True
    )
    session.run(python, "-I", "tests/installed.py", *built, external=True)
    for copy in session.posargs:
        shutil.copytree(folder / "dist", HERE / copy)


@nox.session
def coverage(session: nox.Session) -> None:
    """Every branch is taken by a test."""
    session.install("coverage")
    session.run("coverage", "combine", "--keep", "--quiet")
    session.run("coverage", "report")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Whatever a server hands in, for some minutes: `-- 5000` for so many requests."""
    session.install(*group("test"), "-e", ".")
    requests = (session.posargs or ["100000"])[0]
    session.run(
        "pytest",
        "-o",
        "faulthandler_timeout=3600",
        "tests/middleware/test_fuzz.py",
        env={"HYPOTHESIS_PROFILE": "fuzz", "FUZZ_REQUESTS": requests},
    )


@nox.session
def packages(session: nox.Session) -> None:
    """With packages that add layers, mounts, routers or agents, only what must pass passes; by name only."""
    session.install(*group("packages"), "-e", ".")
    workers = ("--numprocesses", str(os.cpu_count() or 1))
    session.run("pytest", *workers, PACKAGES, *session.posargs, env={"EVENT_LOOPS": "asyncio"})


@nox.session
def mutation(session: nox.Session) -> None:
    """Of the small faults that are put into what everything rests on, the tests notice 95 % and more.

    It takes its time, and is asked for by name. What it has found out it keeps, under `.nox`, until the code of a
    function changes; `-- core` and `-- stores` are its two parts.
    """
    session.install(*group("mutation"), "-e", ".")
    session.run("python", "tests/mutation/run.py", session.create_tmp(), *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """A real server goes into maintenance and comes back."""
    session.install("uvicorn", "httpx", "-e", ".", silent=True)
    session.run("python", "examples/demo.py")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """What it costs, and how fast a change arrives; nothing in it passes or fails.

    All by default, or the parts that are named: `-- requests --quick`, `server`, `imports`, `storm`, `propagation`.
    """
    session.install(*group("benchmarks"), "-e", ".")
    peers = [f"--peer={name}={peer_python(session, name)}" for name in PEERS]
    session.run("python", "benchmarks/run.py", *peers, *session.posargs)


def peer_python(session: nox.Session, name: str) -> str:
    """Make the environment of a peer, unless it is there, and return its Python."""
    home = HERE / ".nox" / f"benchmarks-{name}"
    python = home / "bin" / "python"
    if not python.exists():
        session.run("python", "-m", "venv", str(home))
    session.run(str(python), "-m", "pip", "install", "--quiet", *PEERS[name], external=True)
    return str(python)


if __name__ == "__main__":
    nox.main()
