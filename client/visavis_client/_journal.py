"""This is where a session remembers what another server would have to be told to go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from visavis_client._wire import Request

Tensors = Mapping[str, np.ndarray]


@dataclass
class Journal:
    """All that was sent since the newest snapshot, or since the start, by request id."""

    entries: dict[str, Tensors] = field(default_factory=dict)

    def note(self, request: Request) -> None:
        """Remember a request that is on its way."""
        asks = "want_snapshot"
        self.entries[request.id] = {n: a for n, a in request.tensors.items() if n != asks}

    def forget(self, request_id: str) -> None:
        """A request was refused, which changes nothing on a server."""
        self.entries.pop(request_id, None)

    def begin_with(self, snapshot: np.ndarray, request_id: str) -> None:
        """A snapshot came that holds everything up to a request and that request."""
        ids = list(self.entries)
        if request_id in ids:
            later = ids[ids.index(request_id) + 1 :]
            self.entries = {
                request_id: {"snapshot": snapshot},
                **{one: self.entries[one] for one in later},
            }

    def whole(self) -> dict[str, np.ndarray]:
        """All of it as the tensors of one START request: a session minds no chunking."""
        return merged(self.entries.values())


def merged(messages: Iterable[Tensors]) -> dict[str, np.ndarray]:
    """Tensors of requests in a row as those of one."""
    parts: dict[str, list[np.ndarray]] = {}
    for tensors in messages:
        for name, array in tensors.items():
            parts.setdefault(name, []).append(array)
    return {name: _joined(name, arrays) for name, arrays in parts.items()}


def _joined(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    if name == "transcript":
        turns = [turn for array in arrays for turn in json.loads(array[0])]
        return np.array([json.dumps(turns).encode()], np.object_)
    return np.concatenate(arrays)
