"""Types for psutil, which has none: the processes that a server has started, and the memory that one holds.

Left out: everything else.
"""

from typing import Protocol, type_check_only

from psutil._common import NoSuchProcess as NoSuchProcess

@type_check_only
class _Memory(Protocol):
    @property
    def rss(self) -> int: ...

class Process:
    @property
    def pid(self) -> int: ...
    def __init__(self, pid: int | None = None) -> None: ...
    def children(self, recursive: bool = False) -> list[Process]: ...
    def memory_info(self) -> _Memory: ...
    def send_signal(self, sig: int) -> None: ...
