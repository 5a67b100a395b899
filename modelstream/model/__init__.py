"""The model, as a function of arrays; no store is reached from here.

| module | what |
|---|---|
| `onnx` | loads and runs a model directory |
| `spec` | its `model_spec.yaml` |
| `scoring` | vectors to predictions, with the notebook's hooks |
| `tensors` | the tensors of a V2 request, as vectors |
| `v2` | the V2 inference protocol: paths, requests, answers |
"""
