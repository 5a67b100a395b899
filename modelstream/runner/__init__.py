"""The pipeline on one machine: processes over a data folder.

| module | what |
|---|---|
| `run` | what `pipeline.py run` does |
| `summary` | what it did, and what the folder holds |
| `progress` | how far it is, and the time left |
| `pipeline` | `Pipeline`: the functions of project.yaml, running |
| `signals` | those that end it |
| `supervisor` | starts a process for each worker, and restarts those that die |
| `worker` | such a process: a function on some shards |
| `acknowledging` | what a worker acknowledges, of all shards at once |
| `job` | such a process: a job, such as the source |
| `line` | between the supervisor and a worker |
| `rpc` | requests to the model server's worker |
| `data_folder` | the folder, its lock and its marker file |
| `definition` | what the data in it mean, which it remembers |
| `entries` | what in it is the pipeline's own |
| `preflight` | what would refuse a run is looked at before data are deleted |
| `store_urls` | URLs of stores on the command line |
| `state` | the state of all functions at one moment |
| `arrivals` | how long the oldest message of a stream has been waiting |
| `display` | shows it as a live table |
| `metrics` | shows it to Prometheus and `/healthz` |
| `served` | which version each worker serves, for `status` |
| `retention` | deletes old messages |
| `training` | the training function on a data folder |
| `warm` | compiles once what every first run would wait for |
"""
