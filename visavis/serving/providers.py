"""This is where it is settled what computes a network: ONNX Runtime's own kernels, or OpenVINO.

    optimization { execution_accelerators { cpu_execution_accelerator: [
      { name: "openvino" parameters { key: "precision" value: "bf16" } }
    ] } }

A model's config asks for it by the keys of Triton's own backend, which passes over the parameter
and leaves the precision to OpenVINO. The provider is a plugin beside ONNX Runtime, the package
`onnxruntime-ep-openvino`.

Left to itself, ONNX Runtime goes on without a provider that it lacks, and gives what one cannot
compute to another, without a word. Here both are errors: what is asked for is what runs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

CPU = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
PRECISIONS = {"f32": "FP32", "bf16": "BF16"}  # as OpenVINO takes them: as it tells of a device


class ProviderError(RuntimeError):
    """What a model's config asks for cannot be had here."""


@dataclass(frozen=True)
class OpenVINO:
    """A wish for OpenVINO. Half precision (`bf16`) is what makes it fast; see `PRECISIONS`."""

    precision: str = "bf16"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ProviderError(
                f"openvino: got the precision {self.precision!r}, expected one of "
                f"{', '.join(PRECISIONS)}; change it in the model's config"
            )

    def __str__(self) -> str:
        return f"{OPENVINO} in {self.precision}"


def wish(model_config: Mapping[str, Any]) -> OpenVINO | None:
    """The accelerator that a Triton config (as JSON) asks for on a processor; None is none."""
    accelerators = model_config.get("optimization", {}).get("execution_accelerators", {})
    wishes = accelerators.get("cpu_execution_accelerator", [])
    names = [accelerator["name"] for accelerator in wishes]
    if names not in ([], ["openvino"]):
        raise ProviderError(
            f"cpu_execution_accelerator: got {', '.join(names)}, expected openvino alone or none; "
            "change the model's config"
        )
    return OpenVINO(**wishes[0].get("parameters", {})) if wishes else None


def open_session(
    path: Path, options: onnxruntime.SessionOptions, accelerator: OpenVINO | None
) -> onnxruntime.InferenceSession:
    """The network in the file `path`, computed as asked or not at all: ProviderError."""
    if accelerator is None:
        return onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    use_openvino(options, accelerator)
    try:
        session = onnxruntime.InferenceSession(str(path), options)
    except Exception as error:  # of many kinds, none of which says what to do
        raise ProviderError(
            f"{path}: got {error}, expected {OPENVINO} to compute all of it; serve without this "
            "accelerator"
        ) from error
    if session.get_providers()[0] != OPENVINO:
        raise ProviderError(
            f"{path}: got {', '.join(session.get_providers())}, expected {OPENVINO} first, which "
            "ONNX Runtime has dropped; serve without this accelerator"
        )
    return session


def use_openvino(options: onnxruntime.SessionOptions, accelerator: OpenVINO) -> None:
    """Have sessions with these options computed by OpenVINO, to the last operator."""
    properties = {
        "INFERENCE_PRECISION_HINT": accelerator.precision,
        "INFERENCE_NUM_THREADS": options.intra_op_num_threads,
        # Every model has a process of its own: pinned, they would all be on the same first cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(
        [device_for(accelerator)], {"load_config": json.dumps({"CPU": properties})}
    )


def device_for(accelerator: OpenVINO) -> Any:
    """The processor as OpenVINO's plugin offers it; ProviderError where it cannot do as asked."""
    device = openvino_processor()
    known = device.ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split()
    if PRECISIONS[accelerator.precision] not in known:
        raise ProviderError(
            f"openvino: got a processor that computes in {', '.join(known)}, expected "
            f"{accelerator.precision}; set the precision f32 in the model's config, or serve "
            "without this accelerator"
        )
    return device


def openvino_processor() -> Any:
    """The processor as the plugin offers it; ProviderError where it does not."""
    offered = offered_devices()
    for device in offered:
        if device.ep_name == OPENVINO and device.ep_metadata.get("ov_device") == "CPU":
            return device
    vendors = ", ".join(sorted({device.device.vendor for device in offered}))
    raise ProviderError(
        f"openvino: got nothing of it for a processor of {vendors}, expected {OPENVINO}, which "
        "the package offers for Intel's alone; serve without this accelerator or, on one of "
        "Intel's, pip install --force-reinstall onnxruntime-ep-openvino"
    )


@functools.cache
def offered_devices() -> list[Any]:
    """What ONNX Runtime can use with the plugin, loaded once; ProviderError without."""
    try:
        import onnxruntime_ep_openvino as plugin  # type: ignore[import-not-found]
    except ImportError as error:
        raise ProviderError(
            "openvino: got no package onnxruntime-ep-openvino, expected it, as the model's config "
            "asks for OpenVINO; pip install 'visavis[openvino]', or serve without this accelerator"
        ) from error
    onnxruntime.register_execution_provider_library("openvino", plugin.get_library_path())
    return onnxruntime.get_ep_devices()
