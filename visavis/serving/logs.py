"""This is where the log's lines get their form: plain text, or JSON for a machine to read.

    2026-11-26T15:00:00+0000 INFO session 0f3a91c2… started
    {"time": "2026-11-26T15:00:00+0000", "level": "INFO", "message": …, "event": "session started",
     "session": "0f3a91c2…", "trace_id": …}

It holds for what our Python says, in the models' processes and in the one that watches them; the
form is chosen by the environment variable `VISAVIS_LOG_FORMAT`, which a plain `tritonserver` hands
on. Triton's own lines, which begin with a capital letter and the date, stay as they are.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Literal

from visavis.serving import tracing

VARIABLE = "VISAVIS_LOG_FORMAT"
TEXT = "%(asctime)s %(levelname)s %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S%z"

Form = Literal["text", "json"]


def start(form: str | None = None) -> None:
    """Write what this process says to stderr, in `form` or as the environment has it."""
    if isinstance(sys.stderr, io.TextIOWrapper):  # a model's process starts with ASCII
        sys.stderr.reconfigure(encoding="utf-8")
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(form or os.environ.get(VARIABLE) or "text"))
    handler.addFilter(_with_trace)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("visavis").setLevel(logging.INFO)


def _formatter(form: str) -> logging.Formatter:
    if form == "text":
        return logging.Formatter(TEXT, TIME)
    if form != "json":
        raise ValueError(f'{VARIABLE}: got {form!r}, expected "text" or "json"; choose one')
    from pythonjsonlogger.json import JsonFormatter

    names = {"asctime": "time", "levelname": "level"}
    return JsonFormatter(TEXT, TIME, rename_fields=names)


def _with_trace(record: logging.LogRecord) -> bool:
    """Say which trace a line belongs to, if there is one."""
    if trace_id := tracing.trace_id():
        record.trace_id = trace_id
    return True
