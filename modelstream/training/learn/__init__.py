"""From examples to a chosen model in ONNX.

| module | what |
|---|---|
| `candidates` | tries classifiers, and chooses one |
| `splits` | folds that keep users whole |
| `calibration` | makes probabilities match frequencies |
| `export` | to ONNX, and the comparison with scikit-learn |
| `skew` | what training on final rows would have cost |
"""
