"""Alembic owns the table of the switch, from `alembic init` to deployments by `run`, as the documentation shows."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, cast

import psycopg
import pytest
import sqlalchemy
from anyio import to_thread
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_maintenance import (
    MissingTableError,
    backend_from_url,
    get_maintenance_state,
    get_workers,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend, maintenance_table
from tests.backends.helpers import OFF, ON, messages_of, on_asyncio, wait_for_workers, watched  # noqa: F401 -- a fixture
from tests.cli.driving import COMMAND
from tests.documents import DOCS, example, examples_of, statuses
from tests.servers import Postgres
from tests.support import eventually
from tests.switch.lifespans import living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]
SHOP = "postgresql+asyncpg://localhost/shop"
PROGRAMS = {"alembic": [sys.executable, "-m", "alembic"], "fastapi-maintenance": COMMAND}
MISSING = (
    "the table fastapi_maintenance is missing, and is left to your migrations (metadata=, or create_table=False): run "
    "the migration that creates it once without `fastapi-maintenance run`"
)
LATER = """
from alembic import op

revision, down_revision = {revision!r}, {before!r}

def upgrade():
    op.execute(
        "CREATE TABLE {revision} AS SELECT state FROM fastapi_maintenance WHERE key = 'fastapi_maintenance_mode'"
    )
"""
"""A migration that records the state while it runs."""


class Shop:
    """A folder for the steps of the page, and an empty database."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        self.folder = folder
        self.url = server.url.removesuffix("/postgres") + "/walk"
        self._place = f"host=127.0.0.1 port={server.port} user=postgres dbname="
        self.execute("DROP DATABASE IF EXISTS walk WITH (FORCE)", "postgres")
        self.execute("CREATE DATABASE walk", "postgres")

    def execute(self, statement: str, database: str = "walk") -> list[Any]:
        """Execute a statement and return its rows."""
        with closing(psycopg.connect(self._place + database, autocommit=True)) as client:
            result = client.execute(statement)
            return result.fetchall() if result.description else []

    async def run(self, line: str) -> CompletedProcess[str]:
        """Run a command of the page in the folder."""
        words = [word for each in shlex.split(line) for word in PROGRAMS.get(each, [each.replace(SHOP, self.url)])]

        def run() -> CompletedProcess[str]:
            return subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120)

        return await to_thread.run_sync(run)

    async def succeed(self, line: str) -> str:
        """Run a command, which must succeed, and return what it printed."""
        done = await self.run(line)
        assert (done.returncode, done.stderr) == (0, done.stderr)
        return done.stdout + done.stderr

    def replace(self, path: str, old: str, new: str) -> None:
        """Edit a file."""
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def shop(_servers: Callable[[str], Postgres], tmp_path: Path) -> Shop:
    return Shop(tmp_path, _servers("asyncpg"))


async def test_alembic_deploys_as_the_page_shows(shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    main = example("Let Alembic own the table").replaced(SHOP, shop.url)
    (tmp_path / "main.py").write_text(main.text, encoding="utf-8")
    shown = [
        line for block in examples_of(DOCS / "how-to" / "databases.md", "console") for line in block.text.splitlines()
    ]
    revise, upgrade, *deployments = shown
    names: dict[str, Any] = {}
    app = main.app(names)
    backend = SQLAlchemyBackend(names["engine"], create_table=False)

    async with living(app):
        # Before the first deployment, the service is open, and nothing can be switched or migrated.
        assert await statuses(app, "/") == [200]
        await shop.succeed("alembic init -t async migrations")
        shop.replace("alembic.ini", "driver://user:pass@localhost/dbname", shop.url)
        shop.replace("migrations/env.py", "target_metadata = None\n", example("What Alembic needs to know").text)
        for line in deployments:
            refused = await shop.run(line)
            assert (refused.returncode, refused.stderr.splitlines()[1:]) == (1, [f"error: {MISSING}"])
        for drain in (None, 5):
            with pytest.raises(MissingTableError):
                async with maintenance_mode_on(backend, drain=drain):
                    raise AssertionError
        assert shop.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
        assert await get_workers(backend) == ()

        # The first deployment.
        await shop.succeed(revise)
        await shop.succeed(upgrade)
        await shop.succeed("alembic check")  # it has nothing to add, and nothing to drop
        await wait_for_workers(backend, os.getpid())
        assert await statuses(app, "/") == [200]
        until = f"until it can be registered in {backend!r}: MissingTableError: {MISSING}"
        assert messages_of(caplog) == [
            f"No drain waits for the requests of this process {until}",
            f"Drains wait again for the requests of this process, in {backend!r}",
        ]

        # The next ones, by app and by URL.
        ((before,),) = shop.execute("SELECT version_num FROM alembic_version")
        for revision, line in zip(("second", "third"), deployments, strict=True):
            text = LATER.format(revision=revision, before=before)
            (tmp_path / "migrations" / "versions" / f"{revision}.py").write_text(text, encoding="utf-8")
            printed = await shop.succeed(line)
            ((state,),) = shop.execute(f"TABLE {revision}")
            assert ("confirmed by 1 process" in printed, '"holds": [{' in state, '"on": true' in state) == (True,) * 3
            before = revision
        assert shop.execute("SELECT state FROM fastapi_maintenance WHERE key NOT LIKE 'worker/%'") == [("0",)]
        assert shop.execute("SELECT version_num FROM alembic_version") == [("third",)]
    await names["engine"].dispose()


Give = Callable[[str], SQLAlchemyBackend]
WAYS: dict[str, Give] = {
    "metadata": lambda path: SQLAlchemyBackend(create_async_engine(path), metadata=sqlalchemy.MetaData()),
    "metadata with a schema": lambda path: SQLAlchemyBackend(
        create_async_engine(path, execution_options={"schema_translate_map": {"shop": "main"}}),
        metadata=sqlalchemy.MetaData(schema="shop"),
        table_name="switches",
    ),
    "argument": lambda path: SQLAlchemyBackend(create_async_engine(path), create_table=False),
    "URL": lambda path: cast("SQLAlchemyBackend", backend_from_url(f"{path}?create_table=false")),
}


@pytest.mark.parametrize("way", WAYS)
async def test_table_left_to_migrations_is_never_created_and_is_found_later(way: str, tmp_path: Path) -> None:
    errors: list[object] = []
    backend = WAYS[way](f"sqlite+aiosqlite:///{tmp_path}/switch.db")
    backend.poll_interval = 0.005
    assert maintenance_table(backend.table.metadata, backend.table.name) is backend.table
    sqlalchemy.event.listen(backend.engine.sync_engine, "handle_error", errors.append)
    async with watched(backend) as states:
        await eventually(lambda: len(states) >= 20)
        for value in (True, False):
            with pytest.raises(MissingTableError) as caught:
                await set_maintenance_mode(value, backend)
            assert str(caught.value).replace("shop.switches", "fastapi_maintenance") == MISSING
        async with backend.engine.begin() as connection:
            names = await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names())
            assert (names, len(errors), all(state == OFF for state in states)) == ([], 1, True)
            await connection.run_sync(backend.table.metadata.create_all)
        await set_maintenance_mode(True, backend)
        await eventually(lambda: states[-1] == ON)
    assert len(errors) == 1
    await backend.engine.dispose()


async def test_table_in_a_metadata_is_created_with_create_table(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/switch.db")
    backend = SQLAlchemyBackend(engine, metadata=sqlalchemy.MetaData(), create_table=True)
    await set_maintenance_mode(True, backend)
    assert await get_maintenance_state(backend) == ON
    await engine.dispose()
