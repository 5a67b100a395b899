"""What everything else uses, and what knows nothing about pipelines.

| module | what |
|---|---|
| `command_line` | command lines in hints and errors, as they are typed here |
| `compiled` | loops over arrays, compiled to machine code with numba |
| `durable` | files that survive a power loss |
| `hooks` | calls a notebook's hook; an error names the cell, the line and the row |
| `installed` | whether the environment has what `requirements.in` asks for |
| `arrays` | Arrow arrays of numpy's |
| `json_bytes` | the grammar of JSON over bytes, for compiled loops |
| `names` | what a stream, a table or a log may be called |
| `prefetch` | asks for memory before a compiled loop needs it |
| `process_environment` | environment variables for processes with numpy, Arrow and MLRun |
| `timestamps` | times as values, and rows with times for people |
| `times` | text to times: ISO 8601, and "15m" for how long ago |
| `urls` | URLs of folders |
| `words` | a number with its noun |
| `without_pandas` | keeps pandas out of processes that don't use it |
| `yamlfile` | YAML files that people write; errors name the line |
"""
