"""A test tool: a server that answers the calls of V3IO's web API that this project and V3IO's public clients make.

It is not a store: it keeps everything in memory and in a journal, for one process and for tests. See README.md.

| module | what |
|---|---|
| `__main__` | the server, as `process` starts it |
| `process` | starts, kills and restarts it |
| `http` | HTTP/1.1 on asyncio |
| `service` | which call a request is; the faults that a test asks for |
| `items` | the calls of the NoSQL API |
| `expressions` | its condition and update expressions |
| `values` | its typed attributes |
| `streams` | the calls of the streaming API |
| `objects` | objects, folders, lists |
| `store` | all data in memory, and the journal |
| `errors` | V3IO's error answers |
"""
