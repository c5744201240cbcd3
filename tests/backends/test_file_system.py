"""The file: a file system that never answers."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    LocalFileBackend,
    MaintenanceState,
    cached,
    maintenance_middleware,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import file as file_module
from tests.backends.helpers import as_root
from tests.support import client, eventually
from tests.switch.lifespans import answers

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def silent_file_system(folder: Path) -> Iterator[None]:
    """Mount a file system that never answers, and end it; whoever waits for it is then told that it is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"silent", bytes(folder), b"fuse", 0, options):
            pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            os.close(device)  # which ends it
            device = -1
            libc.umount2(bytes(folder), 2)  # MNT_DETACH
    finally:
        if device >= 0:
            os.close(device)


def at_most_one_thread_hangs() -> bool:
    return 1 >= sum(thread.name == "fastapi_maintenance" for thread in threading.enumerate())


@as_root
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse to make a file system with")
async def test_a_file_system_that_never_answers_holds_no_request_beyond_the_read_timeout(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    backend = cached(LocalFileBackend(volume / "mode"), ttl=0.05)
    app = FastAPI()
    app.add_api_route("/", lambda: "open")  # in a thread of the pool, of which none may be missing
    app.add_middleware(maintenance_middleware(backend=backend, read_timeout=0.2))
    await set_maintenance_mode(True, backend)
    async with client(app) as http:
        assert 503 == (await http.get("/")).status_code
        with silent_file_system(volume):
            for _ in range(5):
                with anyio.fail_after(30):
                    assert 503 == (await http.get("/")).status_code
                await anyio.sleep(0.06)
            await eventually(at_most_one_thread_hangs)
        (volume / "mode").write_text("0")
        await answers(app, 200)


@pytest.mark.parametrize("operation", ["get_state", "set_value"])
async def test_a_file_system_that_hangs_is_given_up_in_time_and_asked_again_later(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    backend = LocalFileBackend(tmp_path / "mode")
    arguments = [True] if operation == "set_value" else []

    def hang(*_: object, **_settings: object) -> Any:  # noqa: ANN401 -- never returned before it goes on
        answers.wait(60)
        raise OSError(errno.EIO, "gone")

    with monkeypatch.context() as patched:
        patched.setattr(file_module, "WRITE_TIMEOUT", 0.05)
        patched.setattr(file_module, "ANSWER_TIMEOUT", 0.05)
        patched.setattr(os, "stat", hang)
        for _ in range(2):  # the second waits for the first, which still hangs
            with pytest.raises(TimeoutError, match="no answer within"):
                await getattr(backend, operation)(*arguments)
        answers.set()
    await getattr(backend, operation)(*arguments)
    assert (operation == "set_value") is await backend.get_value()


@pytest.mark.parametrize("hangs", [1, 2])
async def test_watch_of_a_file_fails_when_it_was_held_up_twice(
    hangs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once may be due to this process, which was stopped or busy: all that is due comes at once when it goes on."""
    backend = LocalFileBackend(tmp_path / "mode")
    look, looks = LocalFileBackend._look, itertools.count(1)

    def held_up(*arguments: Any) -> MaintenanceState:  # noqa: ANN401 -- those of the method
        look_number = next(looks)
        if look_number == hangs:  # the limit of this look is set, and the next one has time
            monkeypatch.setattr(file_module, "WRITE_TIMEOUT", 60)
        if look_number <= hangs:
            time.sleep(1)
        return look(*arguments)

    monkeypatch.setattr(LocalFileBackend, "_look", held_up)
    async with aclosing(backend.watch()) as states:  # type: ignore[type-var]  # a generator
        assert not (await anext(states)).switch.on
        monkeypatch.setattr(file_module, "WRITE_TIMEOUT", 0.6)
        if hangs > 1:
            with anyio.fail_after(30), pytest.raises(TimeoutError, match="has not answered"):
                await anext(states)
        else:
            (tmp_path / "mode").write_text("1")
            with anyio.fail_after(30):
                assert (await anext(states)).switch.on
