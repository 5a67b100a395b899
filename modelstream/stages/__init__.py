"""The boxes of the picture, as the notebooks use them; each is a `Stage`.

| module | what |
|---|---|
| `base` | `Stage`: take messages, send the results, save the state, acknowledge |
| `cycle` | take what waits, of all shards at once; send; save; acknowledge |
| `inbox` | the messages that wait |
| `holding` | a step that fails is tried again |
| `shard` | a stage's state of one shard, and the messages that it gets |
| `poison` | a message that ends the processes which take it: found, and refused |
| `counters` | what a running function reports |
| `data_generator` | the source |
| `event_handler` | the event-handler, and the inference logger |
| `stretches` | the lines that the event-handler takes at once |
| `sent` | values that were looked up for events which it has sent, and not logged |
| `joined` | the rows of small messages, joined, as the other functions take them |
| `stream_to_features` | stream-to-features |
| `model_server` | the model server |
| `endpoint` | its model endpoint in MLRun |
| `monitoring` | what it sends to MLRun's model monitoring |
"""
