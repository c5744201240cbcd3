"""The request and response bodies of the admin API."""

import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field

from fastapi_maintenance._helpers.checks import check_str, reject_value
from fastapi_maintenance.predicates.bypass_cookie import SECRET_LIMIT
from fastapi_maintenance.state import TEXT_LIMIT


def _check_is_text(value: object) -> object:
    """Refuse a number, which Pydantic would read as seconds since 1970: a time is text (RFC 3339)."""
    if not re.match(r"\d{4}-\d\d-\d\d", str(value), re.ASCII):
        msg = "a time must be text such as 2030-12-31T22:00:00Z"
        raise ValueError(msg)
    return value


_Time = Annotated[AwareDatetime, BeforeValidator(_check_is_text)]
_Message = Annotated[str | None, Field(description="The message for visitors.")]
_On = Annotated[bool, Field(strict=True, description="Whether maintenance is on.")]


def check_prefix(prefix: object) -> str:
    """Return the prefix of a router if it is empty, or begins with a slash and ends without one."""
    text = check_str("prefix", prefix)
    if text and (not text.startswith("/") or text.endswith("/")):
        reject_value("prefix", "begin with a slash and end without one, such as '/maintenance'", text)
    return text


def etag(*facts: object) -> str:
    """Return the entity tag of a response with this content (RFC 9110 8.8.3)."""
    return f'"{hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:24]}"'


class Setting(BaseModel, extra="forbid"):
    """The switch as an operator sets it."""

    on: _On
    message: _Message = Field(None, examples=["Back in ten minutes"], max_length=TEXT_LIMIT)
    ends_at: _Time | None = Field(None, description="When the switch ends; null: when it is set again.")


class SettingPatch(Setting):
    """Some fields of the switch. A field that is left out keeps its value, null clears it (RFC 7396)."""

    on: _On = Field(default_factory=lambda: True)  # a plain default would be documented, but absent means unchanged


class SwitchModel(BaseModel):
    """The operator's switch. Whether maintenance is on is in `status.active`."""

    on: bool = Field(description="Whether the operator has turned maintenance on.")
    message: _Message
    ends_at: datetime | None = Field(description="When the switch ends.")
    by: str | None = Field(description="Who set it.")
    since: datetime | None = Field(description="When it was set; null: it was set without details.")


class WindowPlan(BaseModel, extra="forbid"):
    """A window to plan."""

    starts_at: _Time = Field(description="When maintenance begins, in the future.")
    ends_at: _Time | None = Field(None, description="When it ends; null: when it is cancelled or switched off.")
    message: _Message = Field(None, max_length=TEXT_LIMIT)


class WindowModel(BaseModel):
    """A planned window."""

    id: str
    starts_at: datetime
    ends_at: datetime | None
    message: _Message
    by: str | None = Field(description="Who planned it.")
    since: datetime | None = Field(description="When it was planned.")


class HoldModel(BaseModel):
    """A job that holds maintenance on or off while it runs."""

    id: str
    on: bool
    message: _Message
    ends_at: datetime | None = Field(description="When its owner expects it to end.")
    expires_at: datetime | None = Field(description="When its lease ends unless it is renewed.")
    by: str | None = Field(description="Who opened the block.")
    since: datetime | None = Field(description="When it was opened.")


class StatusModel(BaseModel):
    """What the state means now."""

    active: bool = Field(description="Whether maintenance is on.")
    message: _Message
    ends_at: datetime | None = Field(description="When maintenance is expected to end; null: unknown.")
    by: str | None = Field(description="Who turned it on or off.")
    since: datetime | None = Field(description="When it was turned on or off.")
    decided_by: Literal["hold", "switch", "window"] | None = Field(
        description="What decides: the newest hold, else the switch, else a window; null: nothing turns it on."
    )
    next_window: WindowModel | None = Field(description="The next planned window.")


class ServingWorker(BaseModel):
    """A worker, which is a process that serves the app, and its last report. Null: it has not reported."""

    host: str
    process_id: int
    is_current: bool | None = Field(description="Whether it uses the state that is stored now, leases aside.")
    is_on: bool | None = Field(description="Whether maintenance is on for it, by its own clock.")
    requests: int | None = Field(
        description="The number of requests in progress that maintenance would block if they began now; 0 while "
        "maintenance is off."
    )
    oldest_since: datetime | None = Field(description="When the oldest of them began, by the clock of that host.")
    oldest_route: str | None = Field(description="The method and path of the oldest.", examples=["POST /orders"])
    clock_ahead: float | None = Field(
        description="How many seconds its clock is ahead of the store's clock; null: unknown."
    )


class Overview(BaseModel):
    """The whole state, and the workers behind the switch."""

    status: StatusModel
    switch: SwitchModel
    windows: list[WindowModel] = Field(description="The windows in force and the planned ones, by start.")
    holds: list[HoldModel] = Field(description="The holds of running jobs, newest last.")
    workers: list[ServingWorker] | None = Field(
        description="The workers behind the switch; null: the store cannot list them, or failed."
    )


class Presented(BaseModel, extra="forbid"):
    """The secret of a client that wants the bypass cookie."""

    secret: str = Field(max_length=SECRET_LIMIT)


class Admission(BaseModel):
    """A link that gives the bypass cookie to others."""

    link: str = Field(description="Anyone who opens it gets in, until it expires.")
