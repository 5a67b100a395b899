"""The features: events in, vectors out, as arrays; no store is reached from here.

| module | what |
|---|---|
| `engine` | `FeatureEngine`, which keeps the users' rows and applies events to them |
| `kernel` | its compiled loop: the only place where features are computed |
| `statistics` | the running statistics that the kernel updates |
| `users` | the users' rows in memory |
| `vectors` | the vector after an event, with the notebook's derived features |
"""
