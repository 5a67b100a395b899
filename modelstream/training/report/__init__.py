"""What a person reads about a model.

| module | what |
|---|---|
| `card` | the facts, as data |
| `card_text` | what the card says, section by section |
| `document` | sections to Markdown or HTML |
| `plots` | the plots of a card |
| `plots_data` | the plots of the training data |
| `figures` | how plots look |
| `report` | all of it as one HTML page |
"""
