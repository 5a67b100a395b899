"""A use case: what the events, the features and the model of a business case are.

| module | what |
|---|---|
| `declared` | `UseCase`, and the schemas that follow from it |
| `file` | reads a file such as those in `use_cases/` |
| `version_2`, `version_1` | what a file of each version says |
| `vocabulary` | what a feature can be |
| `arithmetic` | arithmetic over features |
| `durations` | lengths of time, such as `1h30m` |
| `stored` | the columns of a stored row that hold the state of the features |
| `check`, `check_features`, `check_version_1` | whether its parts fit together: of both versions, and of each |
| `columns` | names and types of all columns |
| `reasons` | why an event does not count, in words |
| `lookups` | when two keys of a lookup table are the same, and when misses are too many |
| `meaning` | what stored data depend on, and the difference of two use cases in words |
"""
