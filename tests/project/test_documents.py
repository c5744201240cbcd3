"""The README and the pages agree with the project: commands, names, links, and what they repeat."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import fastapi_maintenance
from fastapi_maintenance import Hold, Switch, Window
from fastapi_maintenance._switch.settings import Settings
from fastapi_maintenance.cli.commands import app as cli
from fastapi_maintenance.codec import state_to_text, text_to_state
from fastapi_maintenance.predicates import __all__ as predicates
from hatch_build import with_absolute_links
from tests.documents import DOCS, DOCUMENTS, README, ROOTS, TUTORIAL, blocks_of, example, examples_of
from tests.support import ROOT

COMMANDS = [
    line for document in DOCUMENTS for block in examples_of(document, "console") for line in block.text.splitlines()
]
ALL = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)


def test_blocks_are_closed_have_a_language_and_a_test() -> None:
    """Commands are tested below, and other blocks by their heading, which is unique in each language.

    `test_tutorial.py` follows the tutorial and the quick start from the first block to the last.
    """
    blocks = [block for document in DOCUMENTS for block in blocks_of(document)]
    here = Path(__file__)
    files = (
        *("test_clients", "test_examples", "test_exemptions", "test_recipes", here.stem),
        *("../backends/test_alembic", "../browser/served", "../browser/test_cors", "../browser/test_notice"),
        *("../packages/test_in_one_process", "../responses/test_responses", "../telemetry/test_page"),
    )
    tests = "".join(here.parent.joinpath(f"{name}.py").read_text("utf-8") for name in files)
    assert [line for line in ALL.splitlines() if "```" in line] == [
        fence for block in blocks for fence in (f"```{block.language}", "```")
    ]
    languages = "console dockerfile html http ini js json nginx python text yaml"
    assert {block.language for block in blocks} <= {*languages.split()}
    named = [
        (block.heading, block.language)
        for block in blocks
        if block.language not in {"console", "text"} and block.document != TUTORIAL and block.heading != "Quick start"
    ]
    assert len(set(named)) == len(named)
    assert [heading for heading, _ in named if f'"{heading}"' not in tests] == []


def test_readme_has_the_same_drawing_and_tables_as_the_pages() -> None:
    pages = {
        "How a request is decided": "explanation/decision.md",
        "Choosing a store": "how-to/stores.md",
        "What it costs": "explanation/cost.md",
    }
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    for heading, page in pages.items():
        (shown,) = re.findall(r"^```text\n(?:[^`].*\n|\n)+```$|(?:^\|.*\n)+", sections[heading], re.MULTILINE)
        assert shown in DOCS.joinpath(page).read_text(encoding="utf-8")


def test_house_in_contributing_has_the_folders_of_the_package() -> None:
    folders = {re.sub(r"\.py$|/$", "", path.name) for path in (ROOT / "fastapi_maintenance").iterdir()}
    shown = {
        name.strip("/,")
        for line in example("The house", "text").text.splitlines()
        for name in re.split(r" {3,}", line)[0].split()
    }
    assert {name for name in folders if name not in {"__init__", "__pycache__", "py.typed"}} == shown


def test_map_in_contributing_has_modules_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^\| ([^|]+) \| `([\w/]+\.py)` \|$", text, re.MULTILINE))
    assert len(rules) == len(set(rules.values())) >= 30
    paths = re.findall(r"`([\w/]+\.py)`", text)
    roots = (ROOT / "fastapi_maintenance", ROOT)
    assert [path for path in paths if not any((root / path).is_file() for root in roots)] == []


def test_demo_prints_what_the_readme_shows() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    shown = example("See it work", "text").text
    assert _without_times(shown) == _without_times(printed)


def _without_times(text: str) -> str:
    return re.sub(r"\d{4}-\d{2}-\d{2}T[\d:.]+Z", "a time", text).strip()


def test_commands_of_a_fresh_clone_are_sessions_of_the_noxfile() -> None:
    (block,) = [block for block in examples_of(README, "console") if block.heading == "From a fresh clone"]
    assert block.text.splitlines() == ["python3 noxfile.py -s demo", "python3 noxfile.py"]
    assert "exec python3 noxfile.py\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS if document not in ROOTS)
    assert set(re.findall(r"noxfile\.py -s (\w+)", text)) <= set(sessions)


def test_commands_in_the_pages_exist_with_their_options() -> None:
    whole = "\n".join(COMMANDS).replace("\\\n", " ").splitlines()
    programs = {"alembic", "curl", "export", "fastapi-maintenance", "pip", "python3", "uvicorn"}
    programs |= {"gh", "gunicorn", "ls", "pytest", "sudo"}
    assert {line.split()[0] for line in whole} == programs
    extras = {extra for line in whole if line.startswith("pip ") for extra in re.findall(r"\[(\w+)\]", line)}
    assert extras <= {"bypass", "cli", "redis", "sqlalchemy"}
    shown = [line.split(" -- ")[0].split() for line in whole if line.startswith("fastapi-maintenance ")]
    helps = {words[1]: CliRunner().invoke(cli, [words[1], "--help"]) for words in shown}
    assert {result.exit_code for result in helps.values()} == {0}
    options = [(words[1], word) for words in shown for word in words if word.startswith("--")]
    assert [(name, option) for name, option in options if option not in helps[name].output] == []


def test_reference_of_the_command_has_every_subcommand_and_option() -> None:
    text = DOCS.joinpath("reference", "command.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)[^|]*\|[^|]*\| (.*)\|$", text, re.MULTILINE)
    documented = {name: set(re.findall(r"--[\w-]+", options)) for name, options in rows}
    explained = set(re.findall(r"^\| `(--[\w-]+)`", text, re.MULTILINE)) - {"--help"}
    command = typer.main.get_command(cli)
    assert isinstance(command, typer.core.TyperGroup)
    everywhere = {"--app", "--backend", "--switch"}
    known = {
        name: {
            option for one in each.params if not getattr(one, "hidden", False) for option in one.opts if "--" in option
        }
        - everywhere
        for name, each in command.commands.items()
    }
    assert documented == known
    assert explained == set().union(*known.values())


def test_state_as_text_has_the_fields_of_its_page() -> None:
    shown = example("The state as text", "json").text
    state = text_to_state(shown)
    assert json.loads(state_to_text(state)).keys() == json.loads(shown).keys()
    text = DOCS.joinpath("reference", "state-as-text.md").read_text(encoding="utf-8")
    described = {
        (part, name)
        for name, parts in re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", text, re.MULTILINE)
        for part in parts.replace("all", "switch, windows, holds").split(", ")
    }
    kinds = {"switch": Switch, "windows": Window, "holds": Hold}
    assert described == {(part, field.name) for part, kind in kinds.items() for field in fields(kind)}


def test_hints_have_a_row_each_in_the_pages() -> None:
    hints = (ROOT / "fastapi_maintenance" / "_routing" / "hints.py").read_text(encoding="utf-8")
    topics = re.findall(r'yield "(\w+)"', hints)
    assert topics
    assert sorted(set(topics)) == re.findall(r"^\| `fastapi_maintenance\.hints\.(\w+)`", ALL, re.MULTILINE)


def test_predicates_and_settings_are_documented() -> None:
    assert [name for name in predicates if f"`{name}`" not in ALL] == []
    settings = [field.name for field in fields(Settings) if field.init]
    assert [name for name in settings if f"| `{name}` |" not in ALL] == []


def test_reference_has_every_public_name_once() -> None:
    names = re.findall(r"^::: fastapi_maintenance\.(\S+)$", ALL, re.MULTILINE)
    assert sorted(names) == sorted(set(names))
    assert {name for name in names if "." not in name} == {*fastapi_maintenance.__all__} - {"__version__"}


def test_navigation_has_every_page_once() -> None:
    pages = re.findall(r'= "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(str(path.relative_to(DOCS).as_posix()) for path in DOCS.rglob("*.md")) == sorted(pages)


def test_page_has_the_title_of_the_navigation_and_its_own_description() -> None:
    titles = dict(re.findall(r'"([^"]+)" = "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    descriptions = []
    for title, name in titles.items():
        front, text = re.fullmatch(r"---\n(.+?)\n---\n\n(.+)", _text(name), re.DOTALL).groups()  # type: ignore[union-attr]
        descriptions.append(yaml.safe_load(front)["description"])
        included = re.match(r'--8<-- "(.+)"', text)
        shown = (ROOT / included[1]).read_text(encoding="utf-8") if included else text
        assert name == "index.md" or shown.startswith(f"# {title}\n"), name
    assert len(set(descriptions)) == len(descriptions) == len(list(DOCS.rglob("*.md")))
    assert [each for each in descriptions if not 50 <= len(each) <= 160] == []


def _text(page: str) -> str:
    return DOCS.joinpath(page).read_text(encoding="utf-8")


def test_local_links_lead_to_files() -> None:
    """Building the site checks the anchors."""
    links = [
        (document.parent, link.partition("#")[0])
        for document in DOCUMENTS
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
        if not link.startswith(("https://", "#"))
    ]
    assert [str(folder / link) for folder, link in links if not (folder / link).is_file()] == []


def test_readme_is_short_and_links_every_page_but_the_reference() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    including = {
        DOCS / "index.md",
        *(DOCS / path.name for path in ROOTS),
        DOCS / "changelog.md",
        DOCS / "contributing.md",
    }
    pages = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS[1:] if path not in including]
    generated = [page for page in pages if "\n::: " in (ROOT / page).read_text(encoding="utf-8")]
    assert [page for page in pages if page not in generated and f"({page})" not in text] == []


URL = "https://files.example/blob/v1/"
PICTURE = "![A plot](docs/plots/off.svg)"


@pytest.mark.parametrize(
    ("text", "absolute", "without"),
    [
        ("see [a](docs/a.md)", f"see [a]({URL}docs/a.md)", "see a"),
        ("see [a](docs/a.md#b)", f"see [a]({URL}docs/a.md#b)", "see a"),
        ("[`a.py`](a.py), [b](b.py)", f"[`a.py`]({URL}a.py), [b]({URL}b.py)", "`a.py`, b"),
        ("[a](https://a.example)", "[a](https://a.example)", "[a](https://a.example)"),
        ("[a](#a)", "[a](#a)", "[a](#a)"),
        ("`[redis]` (or not)", "`[redis]` (or not)", "`[redis]` (or not)"),
        (f"a\n\n{PICTURE}\n\nb", f"a\n\n![A plot]({URL}docs/plots/off.svg?raw=true)\n\nb", "a\n\nb"),
    ],
)
def test_with_absolute_links_makes_relative_links_absolute_or_removes_them(
    text: str, absolute: str, without: str
) -> None:
    assert with_absolute_links(text, URL) == absolute
    assert with_absolute_links(text, "") == without


def test_with_absolute_links_of_the_readme_lead_to_files_or_are_removed() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(rf"\]\({URL}([^)?#]+)", with_absolute_links(text, URL))
    assert len(links) == len(re.findall(r"\]\((?!https?://|#)", text)) > 40
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert re.findall(r"\]\((?!https?://|#).*?\)", with_absolute_links(text, "")) == []
