"""The held-out vectors of a version: what it was tested on, kept beside it, so that later versions are judged on them.

They hold no key: users are numbered, and the numbers mean nothing elsewhere. But a vector says much about its user, so
in a folder only the owner may read the file (`registry.folder`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.errors import ConfigurationError
from modelstream.training.snapshot.examples import Examples, Floats, Int8s, draws

HELD_OUT_FILE = "held-out.parquet"
MOST_VECTORS = 100_000
"""Vectors that are kept, an even share of each user's: 13 features make 5 MB at most."""
MOST_BYTES = 256 << 20
"""The largest file that is read."""


@dataclass(frozen=True)
class HeldOut:
    """n vectors of users that a version has not learned from."""

    vectors: Floats
    """float32[n, features]."""
    labels: Int8s
    """int8[n]: 0 or 1."""
    users: npt.NDArray[np.int32]
    """int32[n]: the number of each vector's user."""


def held_out(examples: Examples, seed: int, most: int = MOST_VECTORS) -> bytes:
    """Return examples as a Parquet file: at most about `most` vectors, an even share of each user's.

    >>> examples = Examples(
    ...     vectors=np.array([[1, 2], [3, 4]], np.float32), labels=np.array([1, 0], np.int8),
    ...     users=np.array([8, 5], np.int32), keys=[], kinds=np.zeros(2, np.int8),
    ...     moments=np.arange(2), hours=np.zeros(2, np.float32))
    >>> found = parse_held_out(held_out(examples, seed=1), "example")
    >>> found.vectors.tolist(), found.labels.tolist(), found.users.tolist()
    ([[1.0, 2.0], [3.0, 4.0]], [1, 0], [1, 0])
    """
    if len(examples) > most:
        examples = examples.where(draws(examples, seed) < most / len(examples))
    width = examples.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(examples.vectors.ravel()), width)
    _, users = np.unique(examples.users, return_inverse=True)
    table = pa.table({"user": pa.array(users, pa.int32()), "label": pa.array(examples.labels), "vector": vectors})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def parse_held_out(content: bytes, source: str) -> HeldOut:
    """Return what a file holds; `source` is what errors call it. Raises ConfigurationError."""
    try:
        table = pq.read_table(io.BytesIO(content), memory_map=False).combine_chunks()
        lists = table["vector"].combine_chunks()
        vectors = lists.flatten().cast(pa.float32()).to_numpy().reshape(len(lists), -1)
        labels, users = (table[name].cast(kind).to_numpy() for name, kind in (("label", "int8"), ("user", "int32")))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise ConfigurationError(f"{source} can't be read: {what}", remedy="train the model again") from None
    if not len(labels) or not np.isin(labels, (0, 1)).all():
        raise ConfigurationError(f"{source} holds no labels of 0 and 1", remedy="train the model again")
    return HeldOut(vectors, labels, users)
