"""The model registry: versions of a model, and which of them serves.

| module | what |
|---|---|
| `registry` | `Registry`: register, load, promote, roll back |
| `shipped` | whether the model that comes with a project is one for its use case |
| `current` | `current.json`, which says which version serves |
| `store` | the storage of the versions, a contract; tested by `tests/contract/registry_contract.py` |
| `folder` | in a folder |
| `bucket` | in a bucket; imported only where its URL is used |
| `artifact` | a version as an artifact in MLRun: found when it is promoted, loaded when it serves |
| `watch` | keeps a running server on the promoted version |
"""
