"""A function that notes what it sees, as JSON lines in the file that the variable SPY names."""

from __future__ import annotations

SEEN = {
    "body": "bytes",
    "content_type": "str",
    "fields": "dict",
    "headers": "dict",
    "id": "str",
    "last_in_batch": "bool",
    "method": "str",
    "num_shards": "int",
    "offset": "int",
    "path": "str",
    "shard_id": "int",
    "size": "int",
    "timestamp": "datetime",
    "topic": "str",
    "trigger": "TriggerInfo",
    "type": "str",
    "type_version": "str",
    "url": "str",
    "version": "str",
}
"""The types of the fields of a stream's event."""
EMPTY = ["content_type", "method", "type", "type_version", "url", "version"]
"""Those of its texts that are empty."""

CODE = """
import asyncio
import json
import os

import nuclio_sdk


def note(**what):
    with open(os.environ["SPY"], "a") as file:
        file.write(json.dumps(what) + "\\n")


async def init_context(context):
    note(began=sorted(vars(context.user_data)), worker=type(context.worker_id).__name__)
    context.user_data.busy = False
    context.platform.set_drain_callback(lambda: note(called="drain"))

    async def terminate():
        note(called="termination")

    context.platform.set_termination_callback(terminate)


async def handler(context, event):
    note(taken=[event.shard_id, event.offset], alone=not context.user_data.busy)
    types = {name: type(value).__name__ for name, value in vars(event).items()}
    note(types=types, empty=sorted(name for name, value in vars(event).items() if isinstance(value, str) and not value))
    note(path_is_topic=event.path == event.topic, kinds=[type(event).__module__, type(context.platform).__module__])
    context.user_data.busy = True
    await asyncio.sleep(0.001)
    context.user_data.busy = False
    if event.offset % 10 == 9:
        await context.platform.explicit_ack(nuclio_sdk.QualifiedOffset(event.topic, event.shard_id, event.offset))
"""
