"""Events and predictions over HTTP, for `pipeline.py serve`.

| module | what |
|---|---|
| `service` | runs the functions and the server, until Ctrl-C |
| `server` | uvicorn, in a thread |
| `app` | the paths and their answers |
| `intake` | events of clients, appended to the first stream |
| `about` | the page at `GET /` |
"""
