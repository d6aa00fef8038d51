"""How many conversations find a place: counted, or measured on machines of several kinds."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from visavis.serving import admission
from visavis.serving.admission import MOST, Admission, cost_of_a_block, limit_of

BLOCK_S = 0.2


class Machine:
    """Makes blocks at a time of its own: `cost_s(n)` is what n blocks at once take together.

    Blocks of a round wait for each other, so that time passes once a round whatever threads do.
    """

    def __init__(self, cost_s):
        self.now_s, self.cost_s = 0.0, cost_s
        self.lock = threading.Lock()
        self.rounds: list[int] = []

    def clock(self):
        return self.now_s

    def made(self, at_once):
        with self.lock:
            self.rounds.append(at_once)
            self.now_s += self.cost_s(at_once)

    def measure(self, monkeypatch):
        """`cost_of_a_block` with rounds of this machine in the place of threads."""

        def round_of(make_block, at_once, pool, clock):
            before_s = clock()
            self.made(at_once)
            return clock() - before_s

        monkeypatch.setattr(admission, "_seconds_of", round_of)
        return cost_of_a_block(lambda: None, None, self.clock)  # type: ignore[arg-type]


def test_blocks_that_share_nothing_cost_the_same_however_many(monkeypatch):
    machine = Machine(lambda n: 0.14 * n)
    assert machine.measure(monkeypatch) == pytest.approx(0.14)
    assert max(machine.rounds) == 2  # more were not worth a try


def test_blocks_that_share_a_batch_are_tried_in_greater_numbers(monkeypatch):
    machine = Machine(lambda n: 0.02 + 0.001 * n)
    cost_s = machine.measure(monkeypatch)
    assert cost_s == pytest.approx(0.02 / max(machine.rounds) + 0.001)
    assert max(machine.rounds) >= 64


def test_the_fastest_round_counts(monkeypatch):
    disturbed = iter([0.5, 0.1, 0.3, *[1.0] * 10])
    assert Machine(lambda n: next(disturbed)).measure(monkeypatch) == pytest.approx(0.1)


def test_as_many_blocks_are_made_at_once_as_are_measured():
    together = threading.Barrier(2)
    with ThreadPoolExecutor(4) as pool:
        admission._seconds_of(lambda: together.wait(10), 2, pool, lambda: 0.0)
    assert not together.broken


def admitted(block_cost_s):
    place = Admission(BLOCK_S, clock=lambda: 0.0)
    place.limit = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "cost_of_a_block", lambda *_: block_cost_s)
        place.measure(lambda: None, None)  # type: ignore[arg-type]
    return place


@pytest.mark.parametrize(
    ("block_cost_s", "limit"), [(0.12, 1), (0.3, 1), (0.045, 4), (0.0001, MOST)]
)
def test_a_tenth_of_the_machine_is_left_and_one_session_is_always_held(block_cost_s, limit):
    assert admitted(block_cost_s).limit == limit


def test_the_last_place_is_given_and_no_more():
    place = Admission(BLOCK_S, 2)
    assert place.refusal(1) is None
    assert "the 2 that this server holds" in str(place.refusal(2))


def test_what_has_begun_elsewhere_is_let_in_beyond_what_was_measured_but_not_what_was_told():
    measured, told = admitted(0.045), Admission(BLOCK_S, 4)
    assert [measured.refusal(n, resumed=True) is None for n in (4, 5)] == [True, False]
    assert measured.refusal(4) is not None
    assert told.refusal(4, resumed=True) is not None


def test_nobody_is_let_in_while_blocks_are_late():
    now_s = [0.0]
    place = admitted(0.01)
    place.clock = lambda: now_s[0]
    for _ in range(50):
        place.made_block(0.1)
    assert place.refusal(3) is None
    place.made_block(0.21)
    assert "take longer than they last" in str(place.refusal(3))
    assert place.refusal(0) is None  # one alone disturbs nobody
    now_s[0] = 11.0
    assert place.refusal(3) is None


@pytest.mark.parametrize(("text", "limit"), [("auto", None), ("1", 1), ("64", 64)])
def test_a_limit_is_a_number_or_measured(text, limit):
    assert limit_of(text) == limit


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1025"])
def test_another_limit_is_refused(text):
    with pytest.raises(ValueError, match=r"max_sessions: got .* expected 1 to 1024, or auto"):
        limit_of(text)
