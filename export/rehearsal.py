"""This is where a conversation runs without a server: a plain loop over a repository's files.

What the server gives must equal it bit for bit, which tests ask. It also shows what each network is
given in a conversation, which is how quantised weights are judged: on noise they would not be.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from export.repository import ENSEMBLES
from visavis import config as configs
from visavis import session
from visavis.affect import ReaderAffect, word_ids
from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME, EchoConfig
from visavis.contract import contracts
from visavis.messages import parse_options, parse_transcript
from visavis.serving.model_config import config_path, read
from visavis.serving.network import Network
from visavis.serving.sampling import sample_all

EXAMPLES = Path(__file__).parents[1] / "examples"

Arrays = dict[str, np.ndarray]


class Models:
    """Every model of a repository as a function of arrays with a batch axis.

    Networks run as their configs say, under `config_name` if given, as with a server. `given` keeps
    what each of those in `kept` was asked, in order.
    """

    def __init__(
        self, repository: Path, config_name: str | None = None, kept: tuple[str, ...] = ()
    ):
        self.config = configs.load(EchoConfig, repository / "config.json")
        self.contracts = contracts(self.config)
        self.networks = {
            name: Network.of(
                repository / name / "1", read(config_path(repository / name, config_name))
            )
            for name, model in self.contracts.items()
            if model.kind == "onnx"
        }
        self.kept = kept
        self.given: dict[str, list[Arrays]] = defaultdict(list)

    def run(self, model: str, inputs: Any) -> Arrays:
        """The outputs of a model, by name."""
        if model in self.kept:
            self.given[model].append(dict(inputs))
        if model in self.networks:
            return self.networks[model].run(inputs)
        if model == "sdcm_sampler":
            (outcome,) = sample_all(
                [inputs], lambda batch: self.run("sdcm_denoiser", batch)["x_0"], 24, self.config
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
    models: Models, portrait: Arrays, signals: Arrays, options: str, turns: str
) -> dict[int, bytes]:
    """Raw frames by number, from what a client would send in one request; JSON as it does."""
    config = models.config

    def affect(history):
        ids = word_ids(ReaderAffect().describe(history), config.affect)
        return models.one("affect_encoder", {"word_ids": ids})["affect_tokens"]

    reference = models.one("enroll", {**portrait, "portrait": portrait["portrait"][None]})
    parsed = parse_options(options, config)
    state = session.start(config, parsed, portrait["portrait"], reference, affect(()))
    state = session.append(state, **signals, transcript=parse_transcript(turns))
    return {
        made.first_frame + place: image.tobytes()
        for _, made in session.advance(
            session.finish(state), lambda inputs: models.one("echo", inputs), affect
        )
        for place, image in enumerate(made.images)
    }


def example(models: Models, seconds: float) -> dict[int, bytes]:
    """The beginning of the conversation in `examples/`."""
    from visavis_client.conversation import Conversation  # needs visavis[client]
    from visavis_client.face import align_portrait, read_image

    size, frames = models.config.image_size, round(seconds * FRAME_RATE_HZ)
    recorded = Conversation.from_files(
        avatar_audio=EXAMPLES / "avatar.wav",
        user_audio=EXAMPLES / "user.wav",
        user_video=EXAMPLES / "user.mp4",
    )
    assert recorded.user_audio is not None
    portrait = align_portrait(read_image(EXAMPLES / "portrait.png"), size)
    signals = {
        "avatar_audio": recorded.avatar_audio[: frames * SAMPLES_PER_FRAME],
        "user_audio": recorded.user_audio[: frames * SAMPLES_PER_FRAME],
        "user_video": np.stack(list(itertools.islice(recorded.user_faces(size), frames))),
    }
    return conversation(
        models,
        {"portrait": portrait.image, "region_centers": portrait.region_centers},
        signals,
        '{"user_audio": true, "user_video": true}',
        (EXAMPLES / "transcript.json").read_text(),
    )
