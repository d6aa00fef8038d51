"""What is written of faults."""

import threading

from visavis_client import Client, Response

from benchmarks.fault import Fault, row
from benchmarks.faults import EVENTS
from benchmarks.report import page
from benchmarks.witness import Witness, converse
from tests.benchmarks.test_live import BLOCK, talk  # noqa: F401
from tests.client.in_process_server import InProcessServer
from visavis import record


def test_a_fault_is_a_line_of_the_page(tmp_path):
    seen = {"seconds": 1.2345, "same": True, "none": None}
    fault = Fault("an event", "much", seen, kept=False, raw={"x": [1]})
    assert row(fault.summary()) == {
        "what happens": "an event",
        "promised": "much",
        "kept": "**no**",
        "seen": "seconds 1.23, same yes, none –",
    }
    summary = {"kept": 0, "not_kept": 1, "events": [fault.summary()]}
    record.write(tmp_path / "faults_tiny.json", "faults", settings={}, summary=summary, raw=[])
    assert "| much | **no** | seconds 1.23, same yes, none – |" in page(tmp_path)
    assert "raw" not in fault.summary()


def test_events_have_names_to_choose_them_by():
    names = [event.__name__ for event in EVENTS]
    assert len(set(names)) == len(names) and names[-1] == "large"


def witnessed(talk, change) -> Witness:  # noqa: F811
    """A witness of a pretended server whose requests are answered by `change(usual answers)`."""
    server = InProcessServer()
    try:
        with Client(server.url) as client:
            truth = converse(client, talk, 20)
        usual, heard = server.behaviour, threading.Event()

        def behaviour(request):
            answers = change(list(usual(request)))
            if len(server.requests) > 30:
                heard.set()
            return answers

        server.behaviour = behaviour
        with Witness(server.url, talk, truth.contents, 1e6) as witness:
            assert heard.wait(10)
        return witness
    finally:
        server.stop()


def test_a_witness_of_nothing_is_undisturbed(talk):  # noqa: F811
    witness = witnessed(talk, lambda answers: answers)
    assert witness.undisturbed and witness.figures()["witness_blocks"] == len(witness.block_ms)


def test_a_witness_notices_a_changed_frame(talk):  # noqa: F811
    def change(answers):
        return [
            Response(a.request_id, {**a.tensors, "images": a.tensors["images"][::-1]}, a.final)
            if "images" in a.tensors
            else a
            for a in answers
        ]

    witness = witnessed(talk, change)
    assert witness.changed and not witness.undisturbed
