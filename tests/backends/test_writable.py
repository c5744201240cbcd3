"""`set_value` and `update_state` of every built-in backend that can be written."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastapi_maintenance import MaintenanceState, backend_from_url, get_maintenance_state
from tests.backends.helpers import adding, holds_of, on_asyncio, start_python  # noqa: F401 -- a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_patient")]


@pytest.mark.parametrize("value", [1, "on", None])
@pytest.mark.parametrize("url", ["memory:", "file:switch", "redis://localhost", "sqlite+aiosqlite://"])
async def test_set_value_without_a_boolean_raises(url: str, value: Any) -> None:  # noqa: ANN401 -- what is refused
    with pytest.raises(TypeError, match=rf"^value must be True or False, got {type(value).__name__} {value!r}$"):
        await backend_from_url(url).set_value(value)


@pytest.mark.parametrize("url", ["memory:", "file:{}/mode"])
def test_update_state_waits_for_the_change_of_another_thread(url: str, tmp_path: Path) -> None:
    backend: Any = backend_from_url(url.format(tmp_path))
    begun, overtaken = threading.Event(), threading.Event()

    def slowly(state: MaintenanceState) -> MaintenanceState:
        begun.set()
        overtaken.wait(0.1)  # in vain, as changes take turns
        return adding("first")(state)

    first = threading.Thread(target=anyio.run, args=(backend.update_state, slowly))
    first.start()
    assert begun.wait(30)
    anyio.run(backend.update_state, adding("second"))
    overtaken.set()
    first.join(30)
    assert holds_of(backend.peek()) == ["first", "second"]


@pytest.mark.servers
@pytest.mark.parametrize("url", ["file:{}/switch", "sqlite+aiosqlite:///{}/switch.db?timeout=60"])
def test_update_state_in_two_processes_loses_no_change(url: str, tmp_path: Path) -> None:
    """Here the locks of the operating system order the changes; on a server, two clients are as good as processes."""
    program = """
        import sys
        import anyio
        from fastapi_maintenance import Hold, backend_from_url
        from tests.backends.helpers import adding

        async def change():
            backend = backend_from_url(sys.argv[1])
            for number in range(25):
                await backend.update_state(adding(f"{sys.argv[2]}-{number}"))

        anyio.run(change)
    """
    url = url.format(tmp_path)
    processes = [start_python(program, url, name) for name in "ab"]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0]
    assert len(holds_of(anyio.run(get_maintenance_state, url))) == 50
