"""Show a real server in maintenance and after it: run the shop under uvicorn and send it requests."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

HERE = Path(__file__).parent
ADMIN_KEY = secrets.token_urlsafe()
SHOWN_HEADERS = ("retry-after", "cache-control")


def free_port() -> int:
    """Return a free port of this host."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_up(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server responds, for at most half a minute."""
    for _ in range(300):
        if server.poll() is not None:
            break
        try:
            client.get("/health")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    message = "the server did not start"
    raise RuntimeError(message)


def show(
    client: httpx.Client,
    method: str,
    path: str,
    body: dict[str, object] | None = None,
) -> None:
    """Send a request, and print it and its response."""
    headers = {} if body is None else {"X-Admin-Key": ADMIN_KEY, "If-Match": "*"}
    response = client.request(method, path, json=body, headers=headers)
    shown = [f"{name}: {response.headers[name]}" for name in SHOWN_HEADERS if name in response.headers]
    print(f"$ curl -X {method} {path}".replace("-X GET ", ""))
    if body is not None:
        print(f"""    -H "X-Admin-Key: $SHOP_ADMIN_KEY" -H "If-Match: *" --json '{json.dumps(body)}'""")
    print("  " + "  ".join([f"{response.status_code} {response.reason_phrase}", *shown]))
    print(f"  {response.text}\n")


def main() -> None:
    """Run the demonstration."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "warning"],
            cwd=HERE,
            env={**os.environ, "SHOP_ADMIN_KEY": ADMIN_KEY, "SHOP_STORE": f"file:{folder}/maintenance.txt"},
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_up(client, server)
                print("The shop is open.\n")
                show(client, "GET", "/items")
                print("An administrator closes it. No process is restarted.\n")
                show(client, "PUT", "/maintenance/switch", {"on": True, "message": "Back at ten"})
                show(client, "GET", "/items")
                print("Health checks still pass, and what does not exist is still not found.\n")
                show(client, "GET", "/health")
                show(client, "GET", "/nothing")
                print("It opens again.\n")
                show(client, "PUT", "/maintenance/switch", {"on": False})
                show(client, "GET", "/items")
        finally:
            server.terminate()
            server.wait(timeout=30)


if __name__ == "__main__":
    main()
