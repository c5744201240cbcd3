"""The checks of this project, one session for each promise.

`python noxfile.py` runs all checks, `python noxfile.py -s quick` the ones that take less than a minute, and
`python noxfile.py -s demo` shows the library at work. Only Python with pip is needed: if nox is missing, it is
installed into its own virtual environment, under `.nox`.
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
    """Install nox under `.nox` if it is missing, and run this file with it."""
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
WITHOUT_POSTGRESQL = {"3.15"}  # as in the markers of the group `test`
LAST_FLAT = "fastapi==0.136.3"
"""The last release before included routers became nested."""

PEERS = {
    "0.0.5": ["fastapi-maintenance==0.0.5", LAST_FLAT, "uvicorn[standard]"],
    "waygate": ["waygate[all]==0.2.0", "fastapi", "uvicorn[standard]"],
}
"""Alternatives that users have, each with the newest FastAPI on which it answers correctly."""

RUN_ONCE = {
    "schema": "tests/router/test_router_schema.py",
    "frameworks": "tests/middleware/test_other_frameworks.py",
    "recipes": "tests/project/test_recipes.py",
    "exemptions": "tests/project/test_exemptions.py",
    "clients": "tests/project/test_clients.py",
    "telemetry": "tests/telemetry",
}
"""Dependency groups that only the complete tests need, and the tests that need them."""

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
"""The tests that wait or start processes; the quick checks leave them out."""

FORMATS = {
    "dependabot": "dependabot.yml",
    "github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "github-workflows": "workflows/*.yml",
}
"""The schemas of the files in `.github`."""

PACKAGES = "tests/packages"
"""The tests with other packages, which would make every session install half a gigabyte."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"  # uv takes a tenth of the time
nox.options.download_python = "never"  # the tests run on every Python that is installed
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
# The oldest Python runs with the lowest versions of everything; run it with the newest by name, `tests-3.11`.
nox.options.sessions = [
    *("lint", "floors", "types", "package", "docs", "browser"),
    *(f"tests-{python}" for python in PYTHONS[1:]),
    *("tests_lowest", "coverage"),
]

# The `python3.x` commands of pyenv work only for the chosen versions, so look for all that it has installed.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([*map(str, PYENV.glob("versions/3.*/bin")), os.environ["PATH"]])
os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
os.environ.setdefault("PIP_NO_COMPILE", "1")  # compile only the modules that are imported
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise every process that a test starts compiles everything
INSTALLED = [python for python in PYTHONS if shutil.which(f"python{python}")]
WHOLE_ON = ([python for python in INSTALLED if python not in WITHOUT_POSTGRESQL] or INSTALLED or PYTHONS)[-1]
"""The Python that runs the complete tests: the newest that can run all of them."""


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def run_tests(session: nox.Session, *requirements: str, whole: bool = False) -> None:
    """Run the tests with these requirements.

    Only with `whole` do they run on both event loops, start servers, and record data for the session `coverage`: tests
    that start servers do not depend on the versions of Python and FastAPI.
    """
    once = [requirement for name in RUN_ONCE for requirement in group(name)] if whole else []
    session.install(*group("test"), *once, "-e", ".", *requirements)
    profile = os.environ.get("HYPOTHESIS_PROFILE", "quick" if whole else "brief")
    workers = str(2 * (os.cpu_count() or 1) + 1)  # many tests spend their time waiting
    measuring = ["--cov", "--cov-report=", "--cov-fail-under=0"] if whole else []
    parts = [("not servers", "thread"), ("servers", "greenlet")]  # only tests that start servers use greenlets
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
            success_codes=[0, 5] if session.posargs else [0],  # 5: this part has none of the named tests
        )


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the code with ruff, and the workflows with zizmor and their schemas."""
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
    """Check that imports only go down the floors of the house."""
    session.install(*group("floors"), "-e", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, that type checkers refuse wrong uses of the library, and that the stubs match the real packages.

    The public API is checked with the type checkers that users may have: every public type is known; mypy, pyright and
    pyrefly agree on which uses are right and wrong; ty and zuban accept the right ones.
    """
    session.install(*group("types"), "-e", ".")
    session.run("mypy")
    for stub in sorted(path.name for path in HERE.joinpath("stubs").iterdir() if path.is_dir()):
        session.run("stubtest", stub, "--ignore-missing-stub", env={"MYPYPATH": "stubs"})
    session.run("pyright", "--verifytypes", "fastapi_maintenance", "--ignoreexternal", silent=True)
    session.run("pyright")
    session.run("zuban", "mypy", "tests/typing")
    # These do not report unused ignores, and ty does not know the codes of mypy: compare the lines that they refuse.
    lines = HERE.joinpath("tests", "typing", "api.py").read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# type: ignore" in line}
    by_pyrefly = refused(session, "pyrefly", "check", "--enabled-ignores", "pyrefly", "--output-format", "min-text")
    seen = {
        number for number in wrong if "# not by pyrefly" not in lines[number - 1]
    }  # pyrefly does not resolve the overloads there
    if by_pyrefly != seen:
        session.error(f"pyrefly accepts a wrong use or refuses a right one in lines {by_pyrefly ^ seen}")
    by_ty = refused(session, "ty", "check", "--output-format", "concise")
    if not set() < by_ty <= wrong:
        session.error(f"ty refuses a right use in lines {by_ty - wrong}, or none at all")


def refused(session: nox.Session, *command: str) -> set[int]:
    """Return the lines of the typing tests that a type checker refuses."""
    output = str(session.run(*command, "tests/typing", silent=True, success_codes=[1]))
    return {int(line) for line in re.findall(r"^(?:ERROR )?tests/typing/api\.py:(\d+):", output, re.MULTILINE)}


@nox.session
def quick(session: nox.Session) -> None:
    """Check style, floors and types, and run the fast tests: less than a minute once everything is installed."""
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
    """Run the tests on every supported Python that is installed, with the newest FastAPI."""
    run_tests(session, "--upgrade", "fastapi", whole=session.python == WHOLE_ON)


@nox.session(python=PYTHONS[0], venv_backend="virtualenv")  # uv has no report of what it would install
def tests_lowest(session: nox.Session) -> None:
    """Run the tests with the lowest allowed version of every requirement, FastAPI included."""
    pins = [requirement.replace(">=", "==") for requirement in allowed()]
    report = Path(session.create_tmp()) / "report.json"
    session.install(*pins, "--dry-run", "--ignore-installed", "--quiet", "--report", str(report))
    chosen = {found["metadata"]["name"]: found for found in json.loads(report.read_text())["install"]}
    yanked = [name for name, found in chosen.items() if found.get("is_yanked")]
    if yanked:
        session.error(f"yanked, so it cannot be the lowest allowed version: {', '.join(yanked)}")
    run_tests(session, *pins)


def allowed() -> list[str]:
    """Return the requirements of the package and its extras, each with the lowest allowed version."""
    project = PYPROJECT["project"]
    return [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]


@nox.session
def tests_last_flat(session: nox.Session) -> None:
    """Run the tests with the last FastAPI that flattens included routers, as the oldest does; by name only."""
    run_tests(session, LAST_FLAT)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into `site`, and check its links, anchors and names."""
    session.install(*group("docs"))
    session.run("zensical", "build", "--clean", "--strict")


@nox.session
def browser(session: nox.Session) -> None:
    """Test the maintenance page and the documentation in a real browser, on a screen and a phone."""
    if not any(map(shutil.which, BROWSERS)):
        session.skip(f"no browser found; install one of {', '.join(BROWSERS)}")
    session.install(*group("browser"), "-e", ".")
    session.run("pytest", "--numprocesses", "2", "--dist", "loadfile", "tests/browser", *session.posargs)


@nox.session
def pictures(session: nox.Session) -> None:
    """Take the pictures in the documentation again, with the tests of the pages that they show."""
    session.install(*group("browser"), "-e", ".")
    session.run("pytest", "tests/browser", "-k", "picture", env={"PICTURES": str(HERE / "docs")})
    session.run("python", "-m", "tests.pictures")


@nox.session
def package(session: nox.Session) -> None:
    """Build the distributions, check their contents and metadata, and try the wheel alone in a new environment.

    It also writes an SBOM: the wheel and everything it needs, as CycloneDX. `-- dist` copies the distributions to that
    folder, and the SBOM to the folder `sbom`.
    """
    folder = Path(session.create_tmp())
    shutil.rmtree(folder, ignore_errors=True)
    session.install("build", "cyclonedx-bom>=7", "pip", "twine")
    session.run("python", "-m", "build", "--outdir", str(folder / "dist"), silent=True)
    sdist, wheel = sorted(map(str, folder.joinpath("dist").iterdir()), key=lambda path: path.endswith(".whl"))
    session.run("twine", "check", "--strict", sdist, wheel)
    alone = folder / "alone"
    session.run("python", "-m", "venv", "--without-pip", str(alone))
    python = str(alone / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run("python", "-m", "pip", "--python", python, "install", "--quiet", wheel)
    sbom = folder / "sbom" / "fastapi_maintenance.cdx.json"
    sbom.parent.mkdir()
    root = ("--pyproject", "pyproject.toml", "--mc-type", "library")
    session.run("cyclonedx-py", "environment", *root, "--output-reproducible", "--output-file", str(sbom), python)
    session.run(python, "-I", "tests/installed.py", sdist, wheel, str(sbom), external=True)
    if session.posargs:
        shutil.copytree(folder / "dist", HERE / session.posargs[0])
        shutil.copytree(folder / "sbom", HERE / "sbom")


@nox.session
def coverage(session: nox.Session) -> None:
    """Check that the tests take every branch."""
    session.install("coverage")
    session.run("coverage", "combine", "--keep", "--quiet")
    session.run("coverage", "report")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Send random requests for some minutes; `-- 5000` sets their number."""
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
    """Test with packages that add layers, mounts, routers or agents to an app; by name only."""
    session.install(*group("packages"), "-e", ".")
    workers = ("--numprocesses", str(os.cpu_count() or 1))
    session.run("pytest", *workers, PACKAGES, *session.posargs, env={"EVENT_LOOPS": "asyncio"})


@nox.session
def mutation(session: nox.Session) -> None:
    """Put small faults, mutants, into the core and the stores, and check that the tests notice nearly all of them.

    It takes hours, and runs by name only. Results are kept under `.nox` until the code of a function changes. `-- core`
    and `-- stores` are its two parts.
    """
    session.install(*group("mutation"), "-e", ".")
    session.run("python", "tests/mutation/run.py", session.create_tmp(), *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Show a real server that goes into maintenance and comes back."""
    session.install("uvicorn", "httpx", "-e", ".", silent=True)
    session.run("python", "examples/demo.py")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure what the library costs, and how fast a change arrives; nothing in it passes or fails.

    It runs all parts by default, or the named ones: `-- requests --quick`, `server`, `imports`, `storm`, `propagation`.
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
