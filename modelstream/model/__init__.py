"""The model, as a function of arrays; no store is reached from here.

| module | what |
|---|---|
| `onnx` | loads and runs a model directory |
| `spec` | its `model_spec.yaml` |
| `scoring` | vectors to predictions, with the notebook's hooks |
| `v2` | requests of the V2 inference protocol |
"""
