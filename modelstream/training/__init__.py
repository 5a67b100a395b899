"""Training: from the log of a pipeline to a registered model, with its card.

| step | files |
|---|---|
| all of it | `train`, `tracking` (registry and MLRun) |
| snapshot | `snapshot`, `selection`, `users`, `keeper`, `labels`, `data`, `examples` |
| learn | `candidates`, `splits`, `calibration`, `skew` |
| convert and compare | `export` |
| judge | `evaluation`, `bootstrap`, `early`, `segments`, `importance` |
| tell | `card`, `card_text`, `document`, `report`, `plots`, `plots_data`, `figures` |
| afterwards | `histograms`, `drift`, `drift_page` |
"""
