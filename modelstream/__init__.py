"""The library behind the functions: events in, features and predictions out, each counted once.

Read it in the order of the picture (docs/architecture.md):

| box or arrow | files |
|---|---|
| a business case | `use_case`, `columns` |
| source | `sources`, `lines`, `key_finder`, `sender` |
| data-generator | `stages.data_generator`, `generator`, `distributions`, `enrichment` |
| every arrow | `events` (messages), `identity` (who an event is), `streams` |
| every function | `stages.base` (take, send, commit, acknowledge), `settings`, `notebooks` |
| event-handler | `stages.event_handler`, `checking`, `parsing`, `times`, `dead_letters`, `log` |
| stream-to-features | `stages.stream_to_features`, `features`, `kernel`, `rows`, `statistics`, `vectors`, `tables` |
| model-server | `stages.model_server`, `scoring`, `models`, `model_spec`, `v2` |
| model registry | `registry`, `registry_alias`; `registry_store`: `registry_files` or `registry_s3`; `model_watch` |
| inference-logger | `stages.event_handler` again |
| training | `recompute`, `parity`, `training` (its own table of contents) |
| one machine | `local`: supervisor, workers, HTTP, the live table, looking at results |
| a cluster | `cluster`: triggers and environment for MLRun, the workflow's jobs, deploy and undeploy |
"""

__version__ = "0.1.0"
