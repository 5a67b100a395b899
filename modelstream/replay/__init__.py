"""The log of events, applied again by the same engine.

| module | what |
|---|---|
| `recompute` | what replay, explain and training share |
| `parity` | whether the vectors are those that were served |
| `compare` | `pipeline.py replay`: the stored rows, too |
| `misses` | why lookups found nothing |
| `explain` | `pipeline.py explain`: one user |
"""
