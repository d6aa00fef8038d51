"""The sampler's batches, the ONNX backend and the server's parts, without a server."""

import socket

import numpy as np
import pytest

from tests.fakes.networks import stand_in
from tests.sizes import tiny
from visavis.contract import contracts
from visavis.guidance import guided
from visavis.sampler import sample, settled, settling_weights
from visavis.schedule import timesteps
from visavis.serving import server
from visavis.serving.network import Network
from visavis.serving.sampling import LOOP_INPUTS, sample_all
from visavis.serving.server import LaunchError, Ports, free_ports

CONFIG = tiny()


def arrays(specs, batch, seed=0):
    rng = np.random.default_rng(seed)
    return {
        spec.name: (
            rng.standard_normal((batch, *(3 if n == -1 else n for n in spec.dims)))
            * (50 if spec.dtype != "FP32" else 1)
        ).astype(spec.numpy_dtype)
        for spec in specs
    }


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Opens the stand-in of a model."""
    folder = tmp_path_factory.mktemp("networks")

    def load(name):
        path = folder / f"{name}.onnx"
        path.write_bytes(stand_in(contracts(CONFIG)[name]).SerializeToString())
        return Network(path, threads=1)

    return load


def sampler_request(batch, seed, steps=2, scales=(1.0, 1.0)):
    request = arrays(contracts(CONFIG)["sdcm_sampler"].inputs, batch, seed)
    request["num_steps"][:] = steps
    request["guidance_scale"][:] = scales
    return request


def one_by_one(request, row, denoiser):
    """The plain loop for one row: what the batch must equal."""
    steps, scales = int(request["num_steps"][row, 0]), request["guidance_scale"][row].tolist()
    conditions = {k: v[row : row + 1] for k, v in request.items() if k not in LOOP_INPUTS}

    def predict(x_t, t, masks):
        return [
            denoiser(
                {
                    "x_t": x_t,
                    "timestep": np.array([[t]], np.float32),
                    "condition_mask": np.array([mask], np.float32),
                    **conditions,
                }
            )
            for mask in masks
        ]

    latents = sample(guided(predict, *scales), request["noise"][row : row + 1], timesteps(steps))
    weights = np.array(settling_weights(CONFIG.settling, CONFIG.block_frames))[:, None, None, None]
    reference = request["reference_latents"][row]
    return settled(
        latents[0], request["previous_latents"][row], reference, CONFIG.context_keep, weights
    )


def test_a_batch_equals_one_conversation_at_a_time(network):
    net, batches = network("sdcm_denoiser"), []

    def denoiser(inputs):
        batches.append(len(inputs["x_t"]))
        return net.run(inputs)["x_0"]

    requests = [
        sampler_request(2, 0),
        sampler_request(1, 1, steps=3),
        sampler_request(1, 2),
        sampler_request(2, 3, scales=(2.0, 1.5)),
    ]
    outcomes = sample_all(requests, denoiser, max_batch=4, config=CONFIG)
    # Three alike in two steps; one alone in three; two under three conditions, at most four a call.
    assert batches == [3, 3, 1, 1, 1, 4, 2, 4, 2]
    for request, outcome in zip(requests, outcomes, strict=True):
        assert not isinstance(outcome, Exception)
        for row in range(len(request["noise"])):
            np.testing.assert_allclose(
                outcome["latents"][row], one_by_one(request, row, denoiser), atol=1e-5
            )


def test_a_bad_sampler_request_fails_alone(network):
    net = network("sdcm_denoiser")
    requests = [sampler_request(1, 0), sampler_request(1, 1, steps=0), sampler_request(1, 2)]
    requests[2]["guidance_scale"][:] = np.nan
    good, *bad = sample_all(requests, lambda inputs: net.run(inputs)["x_0"], 24, CONFIG)
    assert not isinstance(good, Exception)
    assert good["latents"].shape == requests[0]["noise"].shape
    assert "num_steps: got 0" in str(bad[0])
    assert "guidance_scale" in str(bad[1])


@pytest.mark.parametrize("name", ["sdcm_denoiser", "vae_encoder", "lcu_encoder"])
def test_requests_of_equal_shape_share_a_batch(network, name, monkeypatch):
    net, inputs = network(name), contracts(CONFIG)[name].inputs
    requests = [arrays(inputs, batch, seed) for seed, batch in enumerate((1, 2, 1))]
    alone = [net.run(request) for request in requests]
    batches, run = [], net.run
    monkeypatch.setattr(net, "run", lambda inputs: batches.append(1) or run(inputs))
    together = net.run_all(requests)
    assert len(batches) == 1
    for a, b in zip(alone, together, strict=True):
        assert not isinstance(b, Exception)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_a_bad_request_fails_alone(network):
    net, inputs = network("vae_encoder"), contracts(CONFIG)["vae_encoder"].inputs
    good, other = arrays(inputs, 1, 0), arrays(inputs, 1, 1)
    bad = {"images": good["images"][:, :, :5]}
    outcomes = net.run_all([good, bad, other])
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]


def model_config(name):
    model = contracts(CONFIG)[name]
    return {
        key: [
            {"name": s.name, "data_type": f"TYPE_{s.dtype}", "dims": [str(n) for n in s.dims]}
            for s in specs
        ]
        for key, specs in (("input", model.inputs), ("output", model.outputs))
    }


def test_a_config_is_held_against_the_file(network):
    net, config = network("vae_encoder"), model_config("vae_encoder")
    assert net.problems(config) == []
    net.warm_up(config)
    config["input"][0]["dims"][1] = "64"
    config["output"][0]["name"] = "z"
    problems = net.problems(config)
    assert [problem.split(":")[0] for problem in problems] == [
        "input images",
        "output image_latents",
        "output z",
    ]


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"http port: got 127.0.0.1:{port}"):
            free_ports("127.0.0.1", Ports(0, port, 0))
    ports = free_ports("127.0.0.1", Ports(0, 0, 0))
    assert len({ports.grpc, ports.http, ports.metrics}) == 3


def test_numpy_2_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(server.np, "__version__", "2.4.1")
    with pytest.raises(LaunchError, match="pip install 'numpy<2'"):
        server.check_environment()
