"""Where events come from: lines, with an identity and a shard, sent to the first stream.

| module | what |
|---|---|
| `readers` | lines of a file or of standard input |
| `input_file` | opens a file of events |
| `formats` | what isn't JSON lines, told by its first bytes, and the way to JSON lines |
| `lines` | blocks of bytes to whole lines |
| `mixing` | refuses an input that would merge with other data |
| `key_finder` | the key of each line, without parsing |
| `sender` | appends the lines to the stream, and saves the progress |
| `generator` | generated events |
| `generator_kernels` | its compiled loops |
| `distributions` | how generated users behave, in numbers |
| `enrichment` | the lookup table, from a CSV file |
"""
