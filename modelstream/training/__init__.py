"""Training: from the log of a pipeline to a registered model, with its card.

| step | files |
|---|---|
| the whole training | `train`, `result` (what is asked for, what comes of it), `tracking` (registry and MLRun) |
| promotion | `promotion`: is a version worse than the one that serves? |
| snapshot | `snapshot/`: `snapshot`, `selection`, `users`, `keeper`, `labels`, `clock`, `data`, `examples`, |
| | `histograms` |
| learn | `learn/`: `candidates`, `splits`, `calibration`, `skew` |
| convert and compare | `learn/export` |
| judge | `judge/`: `evaluation`, `bootstrap`, `early`, `segments`, `importance`, `held_out` |
| report | `report/`: `card`, `card_text`, `document`, `report`, `plots`, `plots_data`, `figures` |
| afterwards | `drift/`: `drift`, `distances`, `drift_page`, `drift_plot` |
"""
