"""A Python-based Triton backend: runs ``<version>/model.onnx`` with onnxruntime in the server.

It stands in for Triton's own ``onnxruntime`` backend where there is only the bare server binary
(one machine, no container): the same model repository serves in both places. Triton starts it for
every model whose ``config.pbtxt`` says ``backend: "onnxruntime"``. The parameters
``intra_op_thread_count`` and ``inter_op_thread_count`` mean what they mean there; 0, the default,
leaves the choice to onnxruntime.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

_DEFAULT_FILE = "model.onnx"


class TritonPythonModel:
    """One instance of one version of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Turn dynamic batching on where a model batches and does not say how."""
        config = auto_complete_model_config.as_dict()
        if config["max_batch_size"] > 0 and "dynamic_batching" not in config:
            auto_complete_model_config.set_dynamic_batching()
        return auto_complete_model_config

    def initialize(self, args):
        """Load the graph; an exception here is Triton's answer to who asked to load the model."""
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _parameter(config, "intra_op_thread_count")
        options.inter_op_num_threads = _parameter(config, "inter_op_thread_count")
        file = config.get("default_model_filename") or _DEFAULT_FILE
        path = Path(args["model_repository"]) / args["model_version"] / file
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [entry["name"] for entry in config["output"]]
        _check_names(path, "inputs", self._inputs, self._session.get_inputs())
        _check_names(path, "outputs", self._outputs, self._session.get_outputs())

    def execute(self, requests):
        """Answer requests: together if their shapes allow; else, or if that fails, one by one."""
        feeds = [
            {
                name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                for name in self._inputs
            }
            for request in requests
        ]
        if len(feeds) > 1 and _shapes_agree(feeds):
            try:
                return self._run_together(feeds)
            except Exception as error:  # noqa: BLE001  one bad request must not fail the others
                pb_utils.Logger.log_warn(
                    f"a batch of {len(feeds)} requests failed, trying each: {error}"
                )
        return [self._run_one(feed) for feed in feeds]

    def finalize(self):
        """Let go of the graph."""
        del self._session

    def _run_together(self, feeds):
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        results = self._session.run(self._outputs, joined)
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
        return [
            self._response(parts)
            for parts in zip(*(np.split(result, ends) for result in results), strict=True)
        ]

    def _run_one(self, feed):
        try:
            return self._response(self._session.run(self._outputs, feed))
        except Exception as error:  # noqa: BLE001  the answer to the client, who sees it
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnxruntime: {error}"))

    def _response(self, results):
        tensors = zip(self._outputs, results, strict=True)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in tensors]
        )


def _parameter(config, name):
    return int(config.get("parameters", {}).get(name, {}).get("string_value", "0"))


def _check_names(path, kind, configured, found):
    missing = sorted(set(configured) - {entry.name for entry in found})
    if missing:
        names = ", ".join(entry.name for entry in found)
        raise pb_utils.TritonModelException(
            f"{path}: config.pbtxt names the {kind} {missing}, the graph has {names}"
        )


def _shapes_agree(feeds):
    first = {name: value.shape[1:] for name, value in feeds[0].items()}
    return all({name: value.shape[1:] for name, value in feed.items()} == first for feed in feeds)
