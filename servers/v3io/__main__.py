"""Part of a test tool (see README.md): the server, as `process.py` starts it, on 127.0.0.1."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
from pathlib import Path

from .http import Connection
from .service import Service
from .store import Store

CONTAINERS = ("bigdata", "projects", "users")


async def serve(service: Service, port: int) -> None:
    """Answer requests until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(service.answer, service.note_pending), "127.0.0.1", port)
    await stop.wait()
    server.close()


def main() -> None:
    """Be the server."""
    parser = argparse.ArgumentParser(description="A stand-in for V3IO's web API; `python -m servers v3io` starts it.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True, help="file that keeps everything over a restart")
    parser.add_argument("--access-key", default="", help="refuse others; empty: any will do")
    given = parser.parse_args()
    store = Store(CONTAINERS, given.journal)
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # what a store holds is never garbage
    asyncio.run(serve(Service(store, given.access_key), given.port))


if __name__ == "__main__":
    main()
