"""A small shop with maintenance mode: its switch is a file or any other store, and operators set it over HTTP.

SHOP_ADMIN_KEY=... SHOP_STORE=redis://localhost uvicorn shop:app
"""

from __future__ import annotations

import os
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.middleware.cors import CORSMiddleware

from fastapi_maintenance import (
    as_html,
    as_json,
    document_maintenance,
    maintenance_middleware,
    negotiate,
    path_prefix,
)
from fastapi_maintenance.router import maintenance_router

ADMIN_KEY = os.environ.get("SHOP_ADMIN_KEY") or secrets.token_urlsafe()
STORE = os.environ.get("SHOP_STORE", "file:maintenance.txt")

items = APIRouter(prefix="/items")


@items.get("")
async def list_items() -> list[str]:
    """Return the items."""
    return ["apple", "pear"]


@items.websocket("/prices")
async def prices(websocket: WebSocket) -> None:
    """Send the price of each item that is received."""
    await websocket.accept()
    async for item in websocket.iter_text():
        await websocket.send_json({"item": item, "price": len(item)})


def administrator(x_admin_key: Annotated[str, Header()] = "") -> None:
    """Refuse requests without the key."""
    if not secrets.compare_digest(x_admin_key.encode(), ADMIN_KEY.encode()):
        raise HTTPException(status_code=403, detail="Administrators only")


app = FastAPI(title="Shop")
app.include_router(items)
app.include_router(maintenance_router(dependencies=[Depends(administrator)]))


@app.get("/health")
async def health() -> dict[str, str]:
    """Return that the process is alive."""
    return {"status": "alive"}


app.add_middleware(
    maintenance_middleware(backend=STORE, exempt=path_prefix("/health"), response=negotiate(as_html(), as_json()))
)
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
document_maintenance(app)
