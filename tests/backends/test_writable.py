"""What all backends that are written on this host have in common: changes that are neither lost nor torn."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastapi_maintenance import Hold, LocalFileBackend, MaintenanceState, MemoryBackend, Switch, Window
from tests.backends.helpers import IN_A_CENTURY, LONG_AGO, adding

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_patient")]
ON, OFF = MaintenanceState(switch=Switch(on=True)), MaintenanceState()


@pytest.fixture(params=["memory", "file"])
def writable(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryBackend | LocalFileBackend:
    return MemoryBackend() if request.param == "memory" else LocalFileBackend(tmp_path / "mode")


@pytest.mark.parametrize("value", [True, False])
async def test_set_value_with_windows_and_a_hold_clears_the_message_and_off_ends_the_window_in_force(
    value: bool, writable: MemoryBackend | LocalFileBackend
) -> None:
    hold = Hold(id="a", on=False)
    in_force, planned = (Window(id="b", starts_at=starts_at) for starts_at in (LONG_AGO, IN_A_CENTURY))
    switch = Switch(on=True, message="Soon")
    await writable.update_state(lambda _: MaintenanceState(switch=switch, windows=(in_force, planned), holds=(hold,)))
    await writable.set_value(value)
    windows = (in_force, planned) if value else (planned,)
    expected = MaintenanceState(switch=Switch(on=value), windows=windows, holds=(hold,))
    assert await writable.get_state() == expected
    assert not await writable.get_value()


@pytest.mark.parametrize("value", [1, "on", None])
async def test_a_switch_is_set_to_nothing_but_true_and_false(
    value: Any,  # noqa: ANN401 -- what is refused
    writable: MemoryBackend | LocalFileBackend,
) -> None:
    with pytest.raises(TypeError, match=r"^value must be True or False, got "):
        await writable.set_value(value)
    assert OFF == writable.peek()


def test_no_change_by_one_of_many_threads_is_lost(writable: MemoryBackend | LocalFileBackend) -> None:
    threads, times = 6, 10

    async def add(number: int) -> None:
        for time_ in range(times):
            await writable.update_state(adding(f"{number}-{time_}"))

    started = [
        threading.Thread(target=lambda n=number: anyio.run(add, n, backend=("asyncio", "trio")[n % 2]))
        for number in range(threads)
    ]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(60)
    expected = {f"{number}-{time_}" for number in range(threads) for time_ in range(times)}
    assert expected == {hold.id for hold in writable.peek().holds}


def test_a_change_waits_for_the_one_that_another_thread_is_making(writable: MemoryBackend | LocalFileBackend) -> None:
    begun, overtaken = threading.Event(), threading.Event()

    def slowly(state: MaintenanceState) -> MaintenanceState:
        begun.set()
        overtaken.wait(0.1)  # in vain, as long as changes take turns
        return adding("first")(state)

    first = threading.Thread(target=anyio.run, args=(writable.update_state, slowly))
    first.start()
    assert begun.wait(30)
    anyio.run(writable.update_state, adding("second"))
    overtaken.set()
    first.join(30)
    assert ["first", "second"] == [hold.id for hold in writable.peek().holds]
