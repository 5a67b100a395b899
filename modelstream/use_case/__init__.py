"""A use case: what the events, the features and the model of a business case are.

| module | what |
|---|---|
| `declared` | `UseCase`, and the schemas that follow from it |
| `file` | reads a file such as those in `use_cases/` |
| `check` | whether its parts fit together |
| `columns` | names and types of all columns |
| `meaning` | what stored data depend on, and the difference of two use cases in words |
"""
