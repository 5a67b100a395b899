"""From lines of JSON to checked events, as arrays; no store is reached from here.

| module | what |
|---|---|
| `parsing` | lines to typed events: `LineParser` |
| `flat_lines` | its fast path: ordinary lines, in one pass over the bytes |
| `values` | what a value of JSON is in a field of each type |
| `lookups` | values that are looked up as events are taken in |
| `checking` | what the event-handler calls: parsing, the hook `transform`, required fields |
"""
