"""A small shop that can be closed: its switch is a file, and an administrator turns it over HTTP."""

from __future__ import annotations

import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

from fastapi_maintenance import (
    LocalFileBackend,
    force_maintenance_mode_off,
    maintenance_middleware,
    path_prefix,
    set_maintenance_mode,
)

ADMIN_KEY = os.environ.get("SHOP_ADMIN_KEY") or secrets.token_urlsafe()
SWITCH = LocalFileBackend(os.environ.get("SHOP_SWITCH", "maintenance.txt"))

app = FastAPI(title="Shop")
app.add_middleware(maintenance_middleware(backend=SWITCH, exempt=path_prefix("/health")))


def administrator(x_admin_key: Annotated[str, Header()]) -> None:
    """Let nobody in but those who know the key."""
    if not secrets.compare_digest(x_admin_key.encode(), ADMIN_KEY.encode()):
        raise HTTPException(status_code=403, detail="This is for administrators")


@app.get("/items")
async def items() -> list[str]:
    """List what can be bought."""
    return ["apple", "pear"]


@app.get("/health")
async def health() -> dict[str, str]:
    """Tell that the process lives."""
    return {"status": "alive"}


@app.put("/admin/maintenance/{switch}", dependencies=[Depends(administrator)])
@force_maintenance_mode_off
async def set_maintenance(switch: bool, message: str | None = None) -> dict[str, bool]:  # noqa: FBT001 -- from the path
    """Close the shop, or open it again."""
    await set_maintenance_mode(switch, message=message)
    return {"maintenance_mode": switch}
