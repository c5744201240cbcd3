"""A read-only backend: an environment variable."""

import os

from fastapi_maintenance._helpers.checks import check_str, reject_value
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance.backends.base import DetailedBackend
from fastapi_maintenance.codec import str_to_bool
from fastapi_maintenance.errors import InvalidStateError, ReadOnlyBackendError
from fastapi_maintenance.state import MaintenanceState, Switch
from fastapi_maintenance.typing import StateChange

DEFAULT_VARIABLE = "FASTAPI_MAINTENANCE_MODE"
_logger = get_logger()


class EnvVarBackend(DetailedBackend):
    """Read the switch from an environment variable of this process.

    >>> EnvVarBackend("SHOP_IS_CLOSED")
    EnvVarBackend('SHOP_IS_CLOSED')

    A value that is not a boolean counts as off, and is logged once as a warning. Two instances for the same variable
    are equal. A block such as `maintenance_mode_on()` works within its own process if a middleware there uses this
    variable; otherwise it raises `ReadOnlyBackendError`.

    Args:
        var_name: The variable's name; None: `FASTAPI_MAINTENANCE_MODE`.

    Raises:
        TypeError: `var_name` is not a `str`.
        ValueError: `var_name` is empty, or contains `=` or a null character.
    """

    def __init__(self, var_name: str | None = None) -> None:
        self.var_name: str = DEFAULT_VARIABLE if var_name is None else check_str("var_name", var_name)
        if not self.var_name or "=" in self.var_name or "\0" in self.var_name:
            reject_value("var_name", "be a name without '=' and null characters", var_name)
        self._states: dict[str, MaintenanceState] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.var_name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvVarBackend) and other.var_name == self.var_name

    def __hash__(self) -> int:
        return hash((EnvVarBackend, self.var_name))

    def peek(self) -> MaintenanceState:
        """Return the state that the variable has now."""
        value = os.environ.get(self.var_name, "")
        if value not in self._states:
            self._states[value] = self._state_of(value)
        return self._states[value]

    async def get_state(self) -> MaintenanceState:
        """Return the state that the variable has now."""
        return self.peek()

    async def update_state(self, change: StateChange) -> MaintenanceState:  # noqa: ARG002 -- read-only
        """Raise a `ReadOnlyBackendError`: no other process would see a change of this process's environment."""
        msg = (
            f"the environment variable {self.var_name} cannot be switched at run time, because no other process would "
            "see it: set it before the service starts, or use a backend that can be written, such as "
            "LocalFileBackend, or close the service for a block with maintenance_mode_on()"
        )
        raise ReadOnlyBackendError(msg)

    def _state_of(self, value: str) -> MaintenanceState:
        try:
            return MaintenanceState(switch=Switch(on=str_to_bool(value)))
        except InvalidStateError as error:
            _logger.warning("The environment variable %s counts as off: %s", self.var_name, error)
            return MaintenanceState()
