"""Features of an event itself, and arithmetic over features: evaluated over columns, behind the kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.use_case.declared import UseCase

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class OwnFeatures:
    """Fills the features that the kernel does not compute."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case

    def fill(self, events: pa.RecordBatch, rows: Int64s, vectors: Float64s) -> None:
        """Fill the rows of `vectors` that are no statistics and no values looked up with the profile."""
