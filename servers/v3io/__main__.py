"""Part of a test tool (see README.md): `python -m servers.v3io [--port N] [--journal FILE]` on 127.0.0.1."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
from pathlib import Path

from .http import Connection
from .service import Service
from .store import Store


async def serve(service: Service, port: int, parent: int | None) -> None:
    """Answer requests until SIGTERM, or the end of a parent process; prints its URL first."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(service.answer, service.note_pending), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    while parent in (None, os.getppid()):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)
            break
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for V3IO's web API, for tests.")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--journal", type=Path, help="file that keeps everything over a restart")
    parser.add_argument("--container", action="append", help="default: bigdata, projects and users")
    parser.add_argument("--access-key", help="refuse others; default: any will do")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started it has ended")
    given = parser.parse_args()
    parent = os.getppid() if given.with_parent else None
    store = Store(given.container or ["bigdata", "projects", "users"], given.journal)
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # what a store holds is never garbage
    asyncio.run(serve(Service(store, given.access_key), given.port, parent))


if __name__ == "__main__":
    main()
