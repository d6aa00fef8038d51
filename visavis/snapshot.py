"""This is where a SessionState becomes bytes and comes back, on this server or another.

    magic, SHA-256 of the rest, safetensors (the tensors of the state, and its facts as JSON)

A checksum does not make contents true: what comes back is checked as if a client had sent it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import safetensors
import safetensors.numpy

from visavis.config import EchoConfig
from visavis.contract import CONTRACT_VERSION, contracts
from visavis.messages import (
    SessionError,
    check_tensor,
    parse_options,
    parse_transcript,
    session_inputs,
)
from visavis.session import SessionState, carried_names

MAGIC = b"visavis session 1\n"
SIGNALS = ("avatar_audio", "user_audio", "user_video")
UNUSABLE = (
    LookupError,
    TypeError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    safetensors.SafetensorError,
)
DIGEST_BYTES = hashlib.sha256().digest_size


def contract_digest(config: EchoConfig) -> str:
    """Names a contract and size; states move only between servers whose digests are equal."""
    return hashlib.sha256(
        f"{CONTRACT_VERSION} {config!r} {contracts(config)!r}".encode()
    ).hexdigest()


def to_bytes(state: SessionState) -> bytes:
    """A snapshot: magic, SHA-256 of the rest, then safetensors.

    Raises:
        SessionError: the conversation has ended, so nothing is left to continue.
    """
    if state.end_frame is not None:
        raise SessionError(
            "want_snapshot: got it with the conversation's end, expected it before; ask earlier"
        )
    facts = {
        "contract": contract_digest(state.config),
        "options": dataclasses.asdict(state.options),
        "block_index": state.block_index,
        "history": [dataclasses.asdict(turn) for turn in state.history],
        "upcoming": [dataclasses.asdict(turn) for turn in state.upcoming],
    }
    tensors = {
        **{f"carried.{name}": array for name, array in state.carried.items()},
        **{name: getattr(state, name) for name in SIGNALS},
        "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
    }
    payload = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    )
    return MAGIC + hashlib.sha256(payload).digest() + payload


def from_bytes(data: bytes, config: EchoConfig) -> SessionState:
    """The state that `to_bytes` wrote.

    Raises:
        SessionError: not a snapshot, damaged, or of another contract or size.
    """
    digest, payload = data[len(MAGIC) :][:DIGEST_BYTES], data[len(MAGIC) + DIGEST_BYTES :]
    if not data.startswith(MAGIC):
        raise SessionError(
            f"snapshot: got {len(data)} bytes of something else, expected a visavis session; "
            "send the bytes as they were received"
        )
    if hashlib.sha256(payload).digest() != digest:
        raise SessionError(
            "snapshot: got bytes whose checksum differs, expected them unchanged; the snapshot is "
            "damaged, use an earlier one or start anew"
        )
    try:
        return _restored(safetensors.numpy.load(payload), config)
    except UNUSABLE as error:
        why = f"{type(error).__name__}: {error}"  # not `repr`, which may hold all that was decoded
        raise SessionError(
            f"snapshot: got unusable contents ({why}), expected those of a visavis session; "
            "start anew"
        ) from error


def _restored(tensors: dict[str, np.ndarray], config: EchoConfig) -> SessionState:
    facts = json.loads(tensors["facts"].tobytes())
    if facts["contract"] != contract_digest(config):
        raise SessionError(
            f"snapshot: got one of contract {str(facts['contract'])[:12]}…, expected "
            f"{contract_digest(config)[:12]}…; resume it on a server of the same version and size"
        )
    block_index = facts["block_index"]
    if type(block_index) is not int or not 0 <= block_index < 2**62:
        raise SessionError(f"snapshot: got block {block_index!r}, expected a count; start anew")
    echo_inputs = {spec.name: spec for spec in contracts(config)["echo"].inputs}
    carried = {name: tensors[f"carried.{name}"] for name in carried_names(config)}
    for name, array in carried.items():
        check_tensor(echo_inputs[name], array)
    for name in SIGNALS:
        check_tensor(session_inputs(config)[name], tensors[name])
    history, upcoming = (
        parse_transcript(json.dumps(facts[name])) for name in ("history", "upcoming")
    )
    return SessionState(
        config=config,
        options=parse_options(json.dumps(facts["options"]), config),
        carried=carried,
        block_index=block_index,
        history=history,
        upcoming=tuple(sorted(upcoming, key=lambda turn: turn.start_s)),
        avatar_audio=tensors["avatar_audio"],
        user_audio=tensors["user_audio"],
        user_video=tensors["user_video"],
    )
