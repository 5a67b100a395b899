"""Events and predictions over HTTP, for `pipeline.py serve`.

| module | what |
|---|---|
| `service` | runs the functions and the server, until Ctrl-C |
| `server` | uvicorn, in a thread |
| `protocol` | a connection, and the bounds of what a client can make it hold |
| `app` | the paths and their answers |
| `bodies` | events in the bodies that clients send, checked and taken apart |
| `intake` | events of clients, appended to the first stream |
| `overload` | tells when no more events should be taken |
| `about` | the page at `GET /` |
"""
