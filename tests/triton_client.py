"""What Triton's client sees of a server of the Open Inference Protocol, as JSON; runs in `.venv-triton`.

python tests/triton_client.py HOST:PORT MODEL '[[values of one vector], ...]'
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.http as triton


def seen(url: str, model: str, vectors: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the answers to every kind of request; `vectors` is float64[n, features]."""
    client = triton.InferenceServerClient(url)
    metadata = client.get_model_metadata(model)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(model),
        "version ready": client.is_model_ready(model, "1"),
        "other ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(),
        "model": metadata,
        "version": client.get_model_metadata(model, "1"),
    }

    def infer(inputs: list[triton.InferInput], **options: Any) -> dict[str, Any]:
        result = client.infer(model, inputs, **options)
        names = [output["name"] for output in result.get_response()["outputs"]]
        return {**result.get_response(), "outputs": {name: result.as_numpy(name).tolist() for name in names}}

    def tensor(name: str, values: npt.NDArray[Any], kind: str, *, binary: bool) -> triton.InferInput:
        made = triton.InferInput(name, list(values.shape), kind)
        made.set_data_from_numpy(values, binary_data=binary)
        return made

    for binary in (False, True):
        whole = [tensor("vectors", vectors.astype(np.float32), "FP32", binary=binary)]
        columns = [
            tensor(each["name"], vectors[:, i : i + 1].copy(), "FP64", binary=binary)
            for i, each in enumerate(metadata["inputs"])
        ]
        (chosen,) = [each["name"] for each in metadata["outputs"] if each["datatype"] == "FP64"]
        outputs = [triton.InferRequestedOutput(chosen, binary_data=binary)]
        found[f"one tensor, binary {binary}"] = infer(whole)
        found[f"columns, binary {binary}"] = infer(columns, request_id="7", model_version="1", outputs=outputs)
    try:
        infer(whole[:1] * 2)
    except triton.InferenceServerException as error:
        found["error"] = [error.status(), error.message()]
    return found


if __name__ == "__main__":
    print(json.dumps(seen(sys.argv[1], sys.argv[2], np.array(json.loads(sys.argv[3])))))
