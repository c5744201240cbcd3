"""Types for psutil, which has none: the processes that a server has started.

Left out: everything else.
"""

from psutil._common import NoSuchProcess as NoSuchProcess

class Process:
    def __init__(self, pid: int | None = None) -> None: ...
    def children(self, recursive: bool = False) -> list[Process]: ...
    def send_signal(self, sig: int) -> None: ...
