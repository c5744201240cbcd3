"""The bodies of the admin API."""

import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field

from fastapi_maintenance._helpers.checks import check_str, reject_value
from fastapi_maintenance.predicates.bypass import SECRET_LIMIT
from fastapi_maintenance.state import TEXT_LIMIT


def _is_text(value: object) -> object:
    """Refuse what Pydantic would take for the seconds since 1970: a time is text, as RFC 3339 has it."""
    if not re.match(r"\d{4}-\d\d-\d\d", str(value), re.ASCII):
        msg = "a time must be text such as 2030-12-31T22:00:00Z"
        raise ValueError(msg)
    return value


_Time = Annotated[AwareDatetime, BeforeValidator(_is_text)]


def check_prefix(prefix: object) -> str:
    """Return the prefix of a router, if it is empty or begins with a slash and ends without one."""
    text = check_str("prefix", prefix)
    if text and (not text.startswith("/") or text.endswith("/")):
        reject_value("prefix", "begin with a slash and end without one, such as '/maintenance'", text)
    return text


def etag(*facts: object) -> str:
    """Return the entity tag of an answer that says this (RFC 9110 8.8.3)."""
    return f'"{hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:24]}"'


class Setting(BaseModel, extra="forbid"):
    """The switch as an operator sets it."""

    on: bool = Field(strict=True, description="Whether maintenance is on.")
    message: str | None = Field(
        None, description="What to tell visitors.", examples=["Back in ten minutes"], max_length=TEXT_LIMIT
    )
    ends_at: _Time | None = Field(None, description="When the switch ends; null: it stays until it is set again.")


class SettingPatch(Setting):
    """Some fields of the switch: a field that is left out stays as it is, null clears it (RFC 7396)."""

    # A plain default would be documented, as if that were what leaving the field out means.
    on: bool = Field(default_factory=lambda: True, strict=True, description="Whether maintenance is on.")


class SwitchModel(BaseModel):
    """The operator's switch. Whether maintenance is on is in `status.active`."""

    on: bool = Field(description="Whether the operator has turned maintenance on.")
    message: str | None = Field(description="What visitors are told.")
    ends_at: datetime | None = Field(description="When the switch ends.")
    by: str | None = Field(description="Who set it.")
    since: datetime | None = Field(description="When they set it; null: it was set without details.")


class WindowPlan(BaseModel, extra="forbid"):
    """A window to plan."""

    starts_at: _Time = Field(description="When maintenance begins, in the future.")
    ends_at: _Time | None = Field(None, description="When it ends; null: until it is cancelled or switched off.")
    message: str | None = Field(None, description="What to tell visitors.", max_length=TEXT_LIMIT)


class WindowModel(BaseModel):
    """A planned window."""

    id: str
    starts_at: datetime
    ends_at: datetime | None
    message: str | None
    by: str | None = Field(description="Who planned it.")
    since: datetime | None = Field(description="When they planned it.")


class HoldModel(BaseModel):
    """A job that holds maintenance on or off while it runs."""

    id: str
    on: bool
    message: str | None
    ends_at: datetime | None = Field(description="When its owner expects it to end.")
    expires_at: datetime | None = Field(description="When its lease ends unless it is renewed.")
    by: str | None = Field(description="Who opened the block.")
    since: datetime | None = Field(description="When it was opened.")


class StatusModel(BaseModel):
    """What the state means now."""

    active: bool = Field(description="Whether maintenance is on.")
    message: str | None = Field(description="What visitors are told.")
    ends_at: datetime | None = Field(description="When maintenance is expected to end; null: that is not known.")
    by: str | None = Field(description="Who turned it on or off.")
    since: datetime | None = Field(description="Since when.")
    decided_by: Literal["hold", "switch", "window"] | None = Field(
        description="What decides: the newest hold, else the switch, else a window; null: nothing turns it on."
    )
    next_window: WindowModel | None = Field(description="The next planned window.")


class ServingWorker(BaseModel):
    """A worker, a process that serves the app, and what it last reported."""

    host: str
    process_id: int
    is_current: bool | None = Field(
        description="Whether it goes by the state that is stored now, leases aside; null: it has not reported."
    )
    is_on: bool | None = Field(
        description="Whether maintenance is on for it, by its own clock; null: it has not reported."
    )
    requests: int | None = Field(
        description="How many requests it runs that maintenance would block if they began now; none while maintenance "
        "is off; null: it has not reported."
    )
    oldest_since: datetime | None = Field(description="When the oldest of them began, by the clock of that host.")
    oldest_route: str | None = Field(description="The method and path of that one.", examples=["POST /orders"])
    clock_ahead: float | None = Field(
        description="How many seconds its clock is ahead of that of the store; null: that is not known."
    )


class Overview(BaseModel):
    """The whole state, and the workers behind the switch."""

    status: StatusModel
    switch: SwitchModel
    windows: list[WindowModel] = Field(description="The windows in force and the planned ones, in the order of time.")
    holds: list[HoldModel] = Field(description="The holds of running jobs, the newest last.")
    workers: list[ServingWorker] | None = Field(
        description="The workers behind the switch; null: the store cannot say, or could not be asked."
    )


class Presented(BaseModel, extra="forbid"):
    """The secret of a client that wants to get in."""

    secret: str = Field(max_length=SECRET_LIMIT)


class Admission(BaseModel):
    """A link that lets others in."""

    link: str = Field(description="Whoever opens it gets in, until it expires.")
