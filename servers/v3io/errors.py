"""Part of a test tool (see README.md): the errors that V3IO answers with, as JSON of a code and a message."""

from __future__ import annotations

from typing import Any

CONDITION_IS_FALSE = -16777244
ITEM_EXISTS = -369098809


class ApiError(Exception):
    """A request that is refused: HTTP status, error code and message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"ErrorCode": code, "ErrorMessage": message}


def invalid(message: str) -> ApiError:
    """Return the error for a request that can't be right."""
    return ApiError(400, -22, f"InvalidArgumentException: {message}")


def no_such_file(path: str) -> ApiError:
    """Return the error for a path where nothing is."""
    return ApiError(404, -2, f"No such file or directory: {path}")


def no_such_resource(path: str) -> ApiError:
    """Return the error for a stream, or a shard without a record, that isn't there."""
    return ApiError(404, -2, f"ResourceNotFoundException: {path}")
