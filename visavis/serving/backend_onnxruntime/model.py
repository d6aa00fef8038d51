"""The Python-based backend `onnxruntime`: serves every model of `backend: "onnxruntime"`.

Triton takes it only where its own backend (`libtriton_onnxruntime.so`) is absent, so the same model
repository loads in NVIDIA's container. The work is in `visavis.serving.network`.
"""

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from visavis.serving import tracing
from visavis.serving.network import Network
from visavis.serving.tensors import respond


class TritonPythonModel:
    """One ONNX file."""

    def initialize(self, args):
        self.name = args["model_name"]
        config = json.loads(args["model_config"])
        self.network = Network.of(Path(args["model_repository"]) / args["model_version"], config)
        problems = self.network.problems(config)
        if problems:
            raise pb_utils.TritonModelException("\n".join(problems))
        self.network.warm_up(config)
        pb_utils.Logger.log_info(f"{config['name']} runs {self.network.provider}")
        tracing.start()

    def execute(self, requests):
        return respond(self.name, requests, self.network.run_all)

    def finalize(self):
        tracing.stop()
