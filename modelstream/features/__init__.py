"""The features: events in, vectors out, as arrays; no store is reached from here.

| module | what |
|---|---|
| `engine` | `FeatureEngine`, which keeps the users' rows and applies events to them |
| `prepared` | what is read of a batch of events before their users are looked at |
| `conditions` | which events meet `where` and `share` |
| `hashes` | XXH3-64 of the values of a column |
| `kernel` | the compiled loop: the only place where features of a history are computed |
| `terms` | a use case, rows and events in the kernel's terms |
| `plan` | puts a use case into these terms |
| `layout` | where everything that is kept of a user lies: the words of its row |
| `statistics` | running statistics of numbers |
| `tallies` | the statistics of a window, or of a step of one: update, merge |
| `windows` | which times lie in a window, and the steps of a sliding one |
| `sessions` | when a user's session begins |
| `recent` | the last values and ids, and the distinct values |
| `users` | the users' rows in memory |
| `own` | features of an event itself, and arithmetic |
| `vectors` | the vector after an event, with the notebook's derived features |
"""
