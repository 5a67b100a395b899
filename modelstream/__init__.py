"""The library behind the functions: events in, features and predictions out, each event counted once.

Where to look, in the order of the picture; docs/architecture.md follows one event through all of it:

| box or arrow of the picture | folder or file |
|---|---|
| source | `stages.data_generator`; `source/`: files, standard input, generated events |
| every arrow | `streams/`; `messages/`: what a message is, and the identity of an event |
| every box | `stages/`, and there `base`: take, send, save, acknowledge |
| event-handler | `stages.event_handler`; `events/`: lines of JSON to checked events |
| events, inference (the logs) | `logs/` |
| stream-to-features | `stages.stream_to_features`; `features/`: the engine that computes every feature |
| features, enrichment (the tables) | `tables/` |
| model-server | `stages.model_server`; `model/`: ONNX and scoring |
| inference-logger | `stages.event_handler` again, with other settings |
| model registry | `registry/` |
| training | `training/`, which lists its own steps; `replay/`: the log of events applied once more |

| around the picture | folder or file |
|---|---|
| what the files of a project say | `project` (`project.yaml`), `use_case/` (`use_cases/*.yaml`), `notebooks` |
| the settings of a function, and the stores that they name | `settings`, `stores` |
| the pipeline on one machine | `runner/`: supervisor and workers; `http/`: events and predictions by HTTP |
| the command line | `commands/`, one file for each command of `pipeline.py` |
| the pipeline on a cluster | `cluster/` |
| below everything | `errors`; `base/`: no domain in it; `clients/`: SQLite, V3IO, S3 |
"""

__version__ = "0.1.0"
