"""Benchmarks, which write docs/performance.md.

| module | what |
|---|---|
| `run` | `make bench`: the pipeline beside its peers, on one file |
| `backends` | the pipeline over each store |
| `peer_polars` | the same job in Polars |
| `peer_bytewax` | the same job in Bytewax |
| `feature_stage` | the feature stage alone |
| `decode_messages` | what each stage's `take` costs a message, by how many wait |
| `foreign` | single records of another producer on Kafka into the log of events |
| `http_load` | load over HTTP for a pipeline that runs |
| `overload` | twice the load that a pipeline can sustain |
| `scoring` | scoring alone |
| `make_input` | writes the file that all of them read |
| `measure` | runs a command, and measures its processes |
| `report` | results as tables |
| `page` | puts the tables into docs/performance.md |
"""
