"""What a model learns from: vectors as they were when it was asked, with labels.

| module | what |
|---|---|
| `snapshot` | takes them: from a replay, or from the log of what was served |
| `data` | the logs and tables that they come from |
| `selection` | which vectors are taken |
| `users` | which users are learned from, and which are tested on |
| `labels` | the outcome of each user |
| `clock` | the end of the log: until when outcomes can be known |
| `keeper` | collects the vectors, part by part |
| `examples` | the result: vectors with labels |
| `histograms` | histograms of all vectors as served, the reference for drift |
"""
