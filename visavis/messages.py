"""This is where what a client sends is read and checked: options, transcript, portrait, signals.

Everything that comes from outside passes here before it touches a state, and is refused whole, with
what it was, what was expected and what to do.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from visavis.affect import ROLES, Turn
from visavis.config import SAMPLES_PER_FRAME, EchoConfig
from visavis.contract import CONTRACT_VERSION, TensorSpec, contracts

MAX_TURN_CHARACTERS = 2000
MAX_PENDING_FRAMES = 3000  # of one signal, waiting for the others: two minutes
MAX_AUDIO_PEAK = 4.0  # a resampler may overshoot 1; int16 values are far beyond
IMAGE_FORMATS = ("jpeg", "raw", "h264")
PICTURES = ("user_video", "user_images")  # the same signal, as values or each as a JPEG


class SessionError(ValueError):
    """What came from outside does not fit; the state it was meant for is unchanged."""


@dataclass(frozen=True)
class Options:
    """What a session may choose; `user_audio` and `user_video` announce the signals to come.

    h264_crf is x264's constant rate factor: 0 loses nothing, 51 nearly all. Frames before
    first_frame are made and not sent: who resumes a session has some of them already.
    """

    seed: int = 0
    num_steps: int = 2
    audio_guidance_scale: float = 1.0
    user_guidance_scale: float = 1.0
    image_format: str = "jpeg"
    jpeg_quality: int = 90
    h264_crf: int = 20
    first_frame: int = 0
    user_audio: bool = False
    user_video: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            allowed = (int, float) if kind is float else (kind,)
            if not isinstance(value, allowed) or (kind is not bool and isinstance(value, bool)):
                raise SessionError(
                    f"options.{field.name}: got {value!r}, expected {kind.__name__}; correct it"
                )
        self._check_range("seed", 0, 2**63 - 1)
        self._check_range("num_steps", 1, 64)
        self._check_range("audio_guidance_scale", 0, 20)
        self._check_range("user_guidance_scale", 0, 20)
        self._check_range("jpeg_quality", 1, 100)
        self._check_range("h264_crf", 0, 51)
        self._check_range("first_frame", 0, 2**63 - 1)
        if self.image_format not in IMAGE_FORMATS:
            raise SessionError(
                f"options.image_format: got {self.image_format!r}, expected one of "
                f"{', '.join(IMAGE_FORMATS)}; choose one"
            )

    def _check_range(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if not least <= value <= most:  # also refuses not-a-number
            raise SessionError(
                f"options.{name}: got {value}, expected {least} to {most}; choose one in range"
            )


def parse_options(text: str, config: EchoConfig, base: Options | None = None) -> Options:
    """Options from JSON ("" is none given) over `base` or the size's defaults.

    `expects` names what the sender believes about the served size, such as {"image_size": 128}.

    Raises:
        SessionError: no JSON object, an unknown key, a value out of range, a wrong belief.
    """
    values = _json(text or "{}", "options", dict)
    _check_expectations(values.pop("expects", {}), config)
    known = [field.name for field in dataclasses.fields(Options)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SessionError(
            f"options: got unknown keys {', '.join(unknown)}, expected some of "
            f"{', '.join([*known, 'expects'])}; remove them"
        )
    return replace(base or Options(**dataclasses.asdict(config.sampling)), **values)


def _check_expectations(expects: Any, config: EchoConfig) -> None:
    served = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if isinstance(getattr(config, field.name), int | str)
    }
    served["contract_version"] = CONTRACT_VERSION
    if not isinstance(expects, dict):
        raise SessionError(f"options.expects: got {expects!r}, expected an object; send one")
    for name, value in expects.items():
        if name not in served:
            raise SessionError(
                f"options.expects: got the unknown key {name}, expected some of "
                f"{', '.join(served)}; remove it"
            )
        if value != served[name]:
            raise SessionError(
                f"options.expects.{name}: got {value!r}, expected {served[name]!r}, which this "
                "server runs; prepare for that or connect to another server"
            )


def parse_transcript(text: str) -> tuple[Turn, ...]:
    """Turns from a JSON list of {"role", "text", "start_s"} ("" is none)."""
    items = _json(text or "[]", "transcript", list)
    return tuple(_turn(f"transcript[{place}]", item) for place, item in enumerate(items))


def _turn(where: str, item: Any) -> Turn:
    keys = ("role", "text", "start_s")
    if not isinstance(item, dict) or sorted(item) != sorted(keys):
        got = _known(item, keys) if isinstance(item, dict) else type(item).__name__
        raise SessionError(f"{where}: got {got}, expected {', '.join(keys)}; correct the object")
    role, said, start_s = (item[key] for key in keys)
    if role not in ROLES:
        raise SessionError(
            f"{where}.role: got {_wordless(role)}, expected {' or '.join(ROLES)}; choose one"
        )
    if not isinstance(said, str) or len(said) > MAX_TURN_CHARACTERS:
        raise SessionError(
            f"{where}.text: got {_wordless(said)}, expected at most {MAX_TURN_CHARACTERS} "
            "characters; split it"
        )
    is_number = isinstance(start_s, int | float) and not isinstance(start_s, bool)
    if not is_number or not abs(start_s) < 1e9:  # also refuses not-a-number
        got = start_s if is_number else _wordless(start_s)
        raise SessionError(f"{where}.start_s: got {got}, expected seconds; give a number")
    return Turn(role, said, float(start_s))


def _wordless(value: Any) -> str:
    """What a value is, without its words: errors are logged, and what people say is not."""
    return f"{len(value)} characters" if isinstance(value, str) else type(value).__name__


def _known(item: dict[str, Any], keys: tuple[str, ...]) -> str:
    found = sorted(key for key in item if key in keys)
    others = len(item) - len(found)
    return ", ".join([*found, *([f"{others} unknown keys"] if others else [])]) or "no keys"


def _json(text: str, name: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SessionError(
            f"{name}: got {error}, expected JSON; write it with a library"
        ) from error
    if not isinstance(value, kind):
        got = type(value).__name__
        raise SessionError(f"{name}: got a JSON {got}, expected a {kind.__name__}; wrap it")
    return value


def check_portrait(config: EchoConfig, portrait: np.ndarray, region_centers: np.ndarray) -> None:
    """SessionError unless `portrait` (H, W, 3) uint8 and `region_centers` (2, 2) float32 fit."""
    inputs = session_inputs(config)
    check_tensor(inputs["portrait"], portrait)
    check_tensor(inputs["region_centers"], region_centers)
    if not ((region_centers >= 0) & (region_centers <= 1)).all():
        raise SessionError(
            f"region_centers: got {region_centers.tolist()}, expected values in [0, 1], the "
            "picture's side being 1; divide pixels by it"
        )


def check_pending(name: str, signal: np.ndarray, waiting: int = 0) -> None:
    """SessionError if a signal, and what waits before it, is too long to wait for the others.

    Costs nothing, so it comes before anything looks at all of a large one.
    """
    length = waiting + sum(signal.shape[:1])
    frames = length if name in PICTURES else length // SAMPLES_PER_FRAME
    if frames > MAX_PENDING_FRAMES:
        raise SessionError(
            f"{name}: got {frames} frames that wait for their block, expected at most "
            f"{MAX_PENDING_FRAMES}; send shorter pieces and, with them, every announced signal"
        )


def check_announced(options: Options, name: str) -> None:
    """SessionError unless the session was started with the user's signal `name`."""
    if not getattr(options, name):
        raise SessionError(
            f"{name}: got it in a session that was started without, expected none; start the "
            f'session with the option "{name}": true'
        )


def check_signal(config: EchoConfig, options: Options, name: str, signal: np.ndarray) -> None:
    """SessionError unless `signal` fits the contract's `name` and was announced in `options`."""
    check_tensor(session_inputs(config)[name], signal)
    if name != "avatar_audio":
        check_announced(options, name)
    peak = np.abs(signal).max(initial=0) if signal.dtype == np.float32 else 0
    if peak > MAX_AUDIO_PEAK:
        raise SessionError(
            f"{name}: got a peak of {peak:g}, expected samples in [-1, 1]; divide int16 by 32768"
        )


def check_tensor(spec: TensorSpec, array: np.ndarray) -> None:
    """SessionError unless `array` has the contract's shape and type and only finite values."""
    problem = spec.mismatch(array)
    if problem:
        raise SessionError(problem)
    if spec.dtype == "FP32" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise SessionError(
            f"{spec.name}: got {count} values that are not finite, expected none; replace them"
        )


@lru_cache(maxsize=8)
def session_inputs(config: EchoConfig) -> dict[str, TensorSpec]:
    """The inputs of `echo_session` by name."""
    return {spec.name: spec for spec in contracts(config)["echo_session"].inputs}
