"""Benchmarks, which write docs/performance.md: `make bench` measures all of it in one sitting.

| module | what |
|---|---|
| `run` | the command line: which sections, in which order |
| `sitting` | what all sections share |
| `bulk` | section: the pipeline beside Polars and Bytewax, on one file |
| `live` | section: single events by `run --rate` |
| `live_http` | section: single events and large bodies over HTTP |
| `too_much` | section: twice the load that can be sustained |
| `users` | section: the cost of an event by number of users |
| `small` | section: the cost of small messages, by how many wait |
| `stream` | section: single events over Kafka, beside Quix Streams |
| `stores` | section: the pipeline over each store |
| `search` | searches the highest rate that is sustained |
| `measure` | runs a command, and measures its processes |
| `report` | bulk results as tables |
| `charts` | charts as SVG |
| `page` | puts tables and charts into docs/performance.md |

Commands that the sections run, each of use by itself too:

| module | what |
|---|---|
| `peer_polars` | the same job in Polars |
| `peer_bytewax` | the same job in Bytewax |
| `peer_quix` | the same job in Quix Streams, over Kafka |
| `peers` | checks that peers give the golden vectors |
| `feature_stage` | the feature stage alone |
| `feature_kernel` | the kernel alone, for 40 features over three sliding windows |
| `foreign` | single records of another producer on Kafka into the log of events |
| `scoring` | scoring alone |
| `small_messages` | what messages of one event cost each function, by how many wait |
| `http_load` | load over HTTP for a pipeline that runs |
| `http_probe` | the same for a new pipeline, with the delay of events |
| `overload` | twice the load that a pipeline can sustain |
| `backends` | the pipeline over each store |
| `make_input` | writes the file that all of them read |
"""
