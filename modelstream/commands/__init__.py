"""The commands of `pipeline.py`, one file each, with the options, the help with an example, and what is printed.

The work itself is done in the folders below this one. Only `pipeline.py` imports the commands, for every help: what
takes long to import is imported inside functions.

| module | what |
|---|---|
| `run` | process events, with the whole pipeline |
| `serve` | accept events over HTTP |
| `status` | how far the functions are, and which model serves |
| `peek` | the last rows of a stream, and new ones |
| `table` | show, write or load a table |
| `ranking` | shared: the highest rows of a table, for `table --by` |
| `explain` | the events and features behind a prediction |
| `replay` | recompute all features, and compare them |
| `check` | the mistakes in a use-case file, and what becomes of a sample of events |
| `train` | train a model |
| `models` | versions of the model, and which of them serves |
| `drift` | served vectors against the training data |
| `deploy` | `deploy` and `undeploy`, for a cluster |
| `options` | shared: options of several commands |
| `process` | shared: file modes, limits and characters of the process |
| `endings` | shared: exit statuses, and errors in words |
| `run_summary` | what a run did, as a person reads it |
| `view` | shared: a data folder, to look at |
| `output` | shared: text for people |
| `formats` | shared: files for programs |
"""
