"""A Redis server that syncs every write."""

from __future__ import annotations

import shutil
from contextlib import suppress

import redis

from servers.base import HOST, Server


class RedisServer(Server):
    """A Redis server. What it has confirmed survives a kill."""

    name = "redis"
    usual_port = 6379

    @classmethod
    def missing(cls) -> str:
        """Return what is missing: the program."""
        installed = shutil.which("redis-server") is not None
        return "" if installed else "redis-server is not installed (Debian: apt-get install redis-server)"

    def url(self, name: str, db: int = 0) -> str:
        """Return a URL of tables."""
        return f"redis://{self.address}/{db}?prefix={name}"

    def options(self, name: str) -> dict[str, str]:
        """Return the option that puts the tables there."""
        return {"--tables": self.url(name)}

    def client(self, db: int = 0) -> redis.Redis:
        """Return a plain client, to look at what is stored."""
        return redis.Redis(HOST, self.port, db, decode_responses=True)

    def _command(self) -> list[str]:
        place = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.folder)]
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--loglevel", "warning"]
        return ["redis-server", *place, *durable]

    def _answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False
