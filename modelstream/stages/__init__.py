"""The boxes of the picture, as the notebooks use them; each is a `Stage`.

| module | what |
|---|---|
| `base` | `Stage`: take messages, send the results, save the state, acknowledge |
| `shard` | a stage's state of one shard, and the messages that it gets |
| `poison` | a message that ends the processes which take it: found, and refused |
| `counters` | what a running function reports |
| `data_generator` | the source |
| `event_handler` | the event-handler, and the inference logger |
| `stream_to_features` | stream-to-features |
| `model_server` | the model server |
"""
