"""What is in a message, and what makes each event count once.

| module | what |
|---|---|
| `codec` | the format of messages between functions: an Arrow batch |
| `json_text` | what clients send: a body taken apart into events, an event's key |
| `raw_lines` | what readers send: raw lines as bytes |
| `untrusted` | an Arrow batch from bytes that anyone may have written |
| `identity` | origin and position, buckets and shards, watermarks |
| `dead_letters` | rows that can never be read, with the reason |
"""
