"""What is in a message, and what makes each event count once.

| module | what |
|---|---|
| `codec` | the format: an Arrow batch between functions, JSON from clients |
| `untrusted` | an Arrow batch from bytes that anyone may have written |
| `identity` | origin and position, buckets and shards, watermarks |
| `dead_letters` | rows that can never be read, with the reason |
"""
