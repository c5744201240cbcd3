"""One variant under uvicorn with httptools and uvloop, as one worker in the environment of its peer."""

from __future__ import annotations

import argparse
import resource

import uvicorn
import uvloop
from variants import make


async def serve(name: str, routes: int, port: int, *, on: bool) -> None:
    """Serve a variant until a signal ends it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    variant = make(name, routes, shortcut=False)
    await variant.switch(on)
    config = uvicorn.Config(
        variant.app, port=port, loop="uvloop", http="httptools", log_level="critical", access_log=False, backlog=16_384
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--routes", type=int, default=10)
    parser.add_argument("--on", action="store_true")
    options = parser.parse_args()
    uvloop.run(serve(options.variant, options.routes, options.port, on=options.on))
