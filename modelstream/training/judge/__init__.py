"""How good a model is, on users that it has never seen.

| module | what |
|---|---|
| `evaluation` | at serving time: all of the following together |
| `bootstrap` | metrics with intervals |
| `early` | how early it is right |
| `segments` | for whom it is wrong |
| `importance` | which features matter |
| `held_out` | the vectors that a version was tested on, kept beside it for later versions |
"""
