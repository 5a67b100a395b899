"""Sessions: a user's events with no pause longer than a gap between them.

A session ends with the latest event, so its end is the user's clock; only its start is kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelstream.base.compiled import compiled_in_place
from modelstream.features import tallies
from modelstream.features.terms import KIND, NEVER, OPEN, OPENED, SESSION, Plan

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_clear = tallies.clear


@compiled_in_place
def move(plan: Plan, row: Int64s, floats: Float64s, clock: int, time: int) -> None:
    """Let an event begin or extend the sessions of a user, whose clock was at `clock` before it.

    One that lies more than the gap before the start belongs to a session that is over: nothing changes.

    Every session of `tests/features/test_vocabulary.py` is an example.
    """
    for session in range(len(plan.gaps)):
        word, gap = plan.sessions + session, plan.gaps[session]
        if clock == NEVER or time > clock + gap:
            row[word] = time
            for w in range(len(plan.windows)):
                if plan.windows[w, KIND] == SESSION and plan.windows[w, OPENED] == word:
                    _clear(floats, plan.windows[w, OPEN], plan.windows[w])
        elif row[word] - gap <= time < row[word]:
            row[word] = time
