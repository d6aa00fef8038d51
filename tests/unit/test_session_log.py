"""What is told of sessions: every event, in text and in JSON, and nothing that anybody said."""

import asyncio
import json
import logging
import re
import uuid

import numpy as np
import pytest

from tests.unit.test_session_host import CONFIG, Reply, audio, call, portrait, text
from visavis.affect import AffectError, LexiconAffect
from visavis.serving import logs, session_log
from visavis.serving.errors import StageFailed
from visavis.serving.session_host import Message, SessionHost

SECRET = "I have told nobody of my illness"


@pytest.fixture
def told(capsys):
    """Start the log in a form; call it for what was told since."""
    root, ours = logging.getLogger(), logging.getLogger("visavis")
    before = (root.handlers[:], root.level, ours.level)

    def lines(form=None):
        if form is not None:
            logs.start(form)
        return capsys.readouterr().err.splitlines()

    yield lines
    root.handlers[:], root.level, ours.level = before


@pytest.fixture
def make_host():
    hosts = []

    def make(call=call, affect=None, **limits):
        hosts.append(SessionHost(CONFIG, call, affect or LexiconAffect(), **limits))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def ask(host, session_id, start=False, end=False, **tensors):
    reply = Reply()
    asyncio.run(host.serve(Message(session_id, start, end, tensors), reply))
    return reply


def turn(**changes):
    return text([{"role": "user", "text": SECRET, "start_s": 0.0} | changes])


def test_every_event_is_a_line_of_json_with_its_facts(make_host, told):
    told("json")
    now_s, slow_s, ids = [0.0], [0.25], [str(uuid.uuid4()) for _ in range(4)]

    def slowly(model, inputs, outputs):
        now_s[0] += slow_s[0] if model == "echo" else 0.0
        return call(model, inputs, outputs)

    host = make_host(slowly, max_sessions=1, idle_s=60.0, clock=lambda: now_s[0])
    ask(host, ids[0], start=True, **portrait())
    late = ask(host, ids[0], avatar_audio=audio(14), want_snapshot=np.array([True]))
    ask(host, ids[1], start=True, **portrait())
    slow_s[0] = 0.0
    ask(host, ids[0], end=True)
    ask(host, ids[2], start=True, snapshot=late.sent[-1]["snapshot"])
    now_s[0] += 61.0
    ask(host, ids[3], start=True, **portrait())
    found = [json.loads(line) for line in told()]
    assert [(line["event"], ids.index(known(ids, line))) for line in found] == [
        ("session started", 0),
        ("session refused", 1),
        ("session ended", 0),
        ("session resumed", 2),
        ("session expired", 2),
        ("session started", 3),
    ]
    assert {line["level"] for line in found} == {"INFO", "WARNING"}
    _, refused, ended, resumed, expired, _ = found
    assert (refused["error"], refused["code"]) == ("ServerFull", "UNAVAILABLE")
    assert ended["seconds"] == 0.5
    assert (ended["blocks"], ended["missed_deadlines"]) == (3, 1)
    assert resumed["block"] == 2
    assert (expired["seconds"], expired["blocks"]) == (61.0, 0)
    assert not any(session_id in json.dumps(found) for session_id in ids)


def known(ids, line):
    return next(one for one in ids if session_log.known_as(one) == line["session"])


def test_text_says_the_same(make_host, told):
    told("text")
    session_id = str(uuid.uuid4())
    host = make_host(clock=lambda: 0.0)
    ask(host, session_id, start=True, end=True, **portrait(), avatar_audio=audio(30))
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} INFO session "
    begin, end = told()
    assert re.fullmatch(f"{time}{session_id[:8]}… started", begin)
    assert re.fullmatch(f"{time}{session_id[:8]}… ended after .* 6 blocks, 0 missed .*", end)


class Indiscreet:
    """A language model that fails, and says at what."""

    def __init__(self, error):
        self.error = error

    def describe(self, history):
        if any(SECRET in turn.text for turn in history):
            raise self.error(SECRET)
        return "The avatar is primarily calm."


@pytest.mark.parametrize(
    "transcript",
    [
        turn(role=SECRET),
        turn(start_s=SECRET),
        turn(text=[SECRET]),
        turn(text=SECRET * 100),
        text([{SECRET: 1}]),
        text({SECRET: 1}),
        np.array([SECRET.encode()], np.object_),
        np.array([SECRET.encode() + b"\xff"], np.object_),
    ],
)
def test_a_refused_transcript_is_not_quoted(make_host, told, transcript):
    told("json")
    host, session_id = make_host(), str(uuid.uuid4())
    reply = ask(host, session_id, start=True, **portrait(), transcript=transcript)
    assert reply.errors
    (line,) = told()
    assert json.loads(line)["error"] == "SessionError"
    assert "transcript" in line
    assert SECRET not in line and session_id not in line


def test_what_fails_in_mid_conversation_is_told_by_its_class_and_place(make_host, told):
    told("json")
    host = make_host(affect=Indiscreet(KeyError))
    ask(host, "s" * 36, start=True, **portrait(), avatar_audio=audio(30), transcript=turn())
    *_, line = told()
    failed = json.loads(line)
    assert (failed["event"], failed["level"]) == ("session failed", "ERROR")
    assert (failed["error"], failed["code"]) == ("KeyError", "INTERNAL")
    assert re.fullmatch(r"at test_session_log\.py:\d+", failed["reason"])
    assert SECRET not in line


def test_a_stage_that_fails_is_told_in_its_own_words(make_host, told):
    def broken(model, inputs, outputs):
        raise StageFailed(f"{model}: got the error 'boom', expected latents; see the log")

    told("json")
    ask(make_host(broken), "a", start=True, **portrait())
    (line,) = told()
    assert json.loads(line)["reason"].startswith("enroll: got the error 'boom'")


def test_an_endpoints_own_error_is_told_and_has_no_transcript(make_host, told):
    told("text")
    host = make_host(affect=Indiscreet(lambda _: AffectError("endpoint: got HTTP 503")))
    ask(host, "a", start=True, **portrait(), avatar_audio=audio(30), transcript=turn())
    (line,) = [line for line in told() if "affect" in line]
    assert "HTTP 503; the built-in reader answers instead" in line


def test_the_watchdogs_sessions_are_no_news(make_host, told):
    told("text")
    ask(make_host(), f"{session_log.CANARY}{uuid.uuid4()}", start=True, end=True)
    assert told() == []


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match='expected "text" or "json"'):
        logs.start("xml")
