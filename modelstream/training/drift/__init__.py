"""Drift: whether the vectors that are served are still like the model's training data.

| module | what |
|---|---|
| `drift` | compares them |
| `reference` | the card of the version that they are compared with |
| `distances` | how far apart two histograms are |
| `drift_page` | the table and the HTML page |
| `drift_plot` | the plot |
"""
