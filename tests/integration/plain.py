"""This is where a conversation runs without a server: a plain loop over a repository's files.

What the server gives must equal it bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.repository import ENSEMBLES
from visavis import config as configs
from visavis import session
from visavis.affect import ReaderAffect, word_ids
from visavis.config import EchoConfig
from visavis.contract import contracts
from visavis.messages import parse_options, parse_transcript
from visavis.serving.network import Network
from visavis.serving.sampling import sample_all

Arrays = dict[str, np.ndarray]


class Models:
    """Every model of a repository as a function of arrays with a batch axis."""

    def __init__(self, repository: Path):
        self.config = configs.load(EchoConfig, repository / "config.json")
        self.contracts = contracts(self.config)
        self.networks = {
            name: Network(repository / name / "1" / "model.onnx", threads=1)
            for name, model in self.contracts.items()
            if model.kind == "onnx"
        }

    def run(self, model: str, inputs: Any) -> Arrays:
        if model in self.networks:
            return self.networks[model].run(inputs)
        if model == "sdcm_sampler":
            denoiser = self.networks["sdcm_denoiser"]
            (outcome,) = sample_all(
                [inputs], lambda batch: denoiser.run(batch)["x_0"], 24, self.config
            )
            assert not isinstance(outcome, Exception)
            return dict(outcome)
        known = dict(inputs)
        for step in ENSEMBLES[model]:
            names = [spec.name for spec in self.contracts[step.model].inputs]
            outputs = self.run(
                step.model, {name: known[step.inputs.get(name, name)] for name in names}
            )
            known |= {step.outputs.get(name, name): array for name, array in outputs.items()}
        return {spec.name: known[spec.name] for spec in self.contracts[model].outputs}

    def one(self, model: str, inputs: Arrays) -> Arrays:
        """Without batch axis."""
        outputs = self.run(model, {name: array[None] for name, array in inputs.items()})
        return {name: array[0] for name, array in outputs.items()}


def conversation(
    repository: Path, portrait: Arrays, signals: Arrays, options: np.ndarray, turns: np.ndarray
) -> dict[int, bytes]:
    """Raw frames by number, from what a client would send in one request."""
    models = Models(repository)
    config = models.config

    def affect(history):
        ids = word_ids(ReaderAffect().describe(history), config.affect)
        return models.one("affect_encoder", {"word_ids": ids})["affect_tokens"]

    reference = models.one("enroll", {**portrait, "portrait": portrait["portrait"][None]})
    parsed = parse_options(options[0].decode(), config)
    state = session.start(config, parsed, portrait["portrait"], reference, affect(()))
    transcript = parse_transcript(turns[0].decode())
    state = session.finish(session.append(state, **signals, transcript=transcript))
    return {
        made.first_frame + place: image.tobytes()
        for _, made in session.advance(state, lambda inputs: models.one("echo", inputs), affect)
        for place, image in enumerate(made.images)
    }
