"""The watchdog over pretended models: what it mends, and what it leaves alone."""

import threading
from dataclasses import dataclass, field

import pytest
from tritonclient.utils import InferenceServerException

from tests.sizes import tiny
from visavis.contract import contracts
from visavis.serving.watchdog import (
    ASK_EVERY_S,
    LOOK_EVERY_S,
    PATIENCE,
    QUIET_S,
    ServerGone,
    Watchdog,
    canary,
)


@dataclass
class Pretended:
    """Models that say what a test wants."""

    alive: dict = field(default_factory=lambda: {"sampler": 1, "decoder": 2})
    done: dict = field(default_factory=lambda: {"sampler": 0, "decoder": 0, "in_c++": 0})
    hanging: set = field(default_factory=set)
    asked: list = field(default_factory=list)
    reloaded: list = field(default_factory=list)

    def processes(self):
        return self.alive

    def answered(self):
        return dict(self.done)

    def ask(self, model):
        self.asked.append(model)
        return model not in self.hanging

    def reload(self, model):
        self.reloaded.append(model)
        self.alive = {"sampler": 1, "decoder": 2}
        self.hanging.discard(model)


@pytest.fixture
def models():
    return Pretended()


@pytest.fixture
def look(models):
    """Look for some seconds."""
    now_s = [0.0]
    dog = Watchdog(models, clock=lambda: now_s[0])

    def go_on(seconds=LOOK_EVERY_S, each=lambda: None):
        for _ in range(round(seconds / LOOK_EVERY_S)):
            each()
            dog.look()
            now_s[0] += LOOK_EVERY_S
        return list(dog.counts.reloads.elements())

    return go_on


def test_a_dead_process_is_replaced_at_once_and_only_once(models, look):
    assert look() == []
    del models.alive["sampler"]
    assert look() == ["sampler"]
    assert look(5) == models.reloaded == ["sampler"]


def test_a_process_that_dies_before_the_first_look_is_missed(models):
    dog = Watchdog(models)
    dog.learn()
    del models.alive["sampler"]
    dog.look()
    assert models.reloaded == ["sampler"]


def test_one_of_several_processes_counts(models, look):
    look()
    models.alive = {"sampler": 1, "decoder": 1}
    assert look() == ["decoder"]


def test_a_model_without_processes_of_its_own_is_never_missed(models, look):
    assert look(60) == []


def test_a_busy_model_is_not_asked(models, look):
    def work():
        models.done = {name: count + 1 for name, count in models.done.items()}

    look(60, each=work)
    assert models.asked == []


def test_a_quiet_model_is_asked_now_and_then(models, look):
    look(QUIET_S)
    assert models.asked == []
    look(10 * ASK_EVERY_S)
    assert sorted(set(models.asked)) == ["decoder", "in_c++", "sampler"]
    assert 27 <= len(models.asked) <= 33


def test_one_model_a_look_is_asked(models, look):
    look(QUIET_S)
    counts = []
    look(1.0, each=lambda: counts.append(len(models.asked)))
    assert counts[:4] == [0, 1, 2, 3]


def test_a_model_that_hangs_is_replaced(models, look):
    models.hanging = {"decoder"}
    assert look(QUIET_S + 4 * LOOK_EVERY_S) == ["decoder"]
    assert look(60) == ["decoder"]


def test_a_model_that_is_late_while_others_answer_is_not_replaced(models, look):
    """On a crowded machine it waits for its turn, and answers in the end."""

    def crowded():
        models.done["sampler"] += 1
        if models.asked.count("decoder") == PATIENCE - 1:
            models.hanging.clear()

    models.hanging = {"decoder"}
    ask = models.ask
    models.ask = lambda model: (crowded(), ask(model))[1]
    assert look(60) == []
    assert not models.hanging


def test_a_model_that_hangs_while_others_answer_is_replaced(models, look):
    def others_work():
        models.done["sampler"] += 1

    models.hanging = {"decoder"}
    ask = models.ask
    models.ask = lambda model: (others_work(), ask(model))[1]
    assert look(60) == ["decoder"]
    first = models.asked.index("decoder")
    assert models.asked[first : first + PATIENCE] == ["decoder"] * PATIENCE


def test_a_server_that_does_not_answer_is_looked_at_again(models):
    stop, looks = threading.Event(), []

    def answered():
        looks.append(1)
        if len(looks) == 3:
            stop.set()
        raise InferenceServerException("gone")

    models.answered = answered
    Watchdog(models).run(stop)
    assert len(looks) == 3


def test_a_server_that_was_replaced_has_other_processes(models):
    """What the one before had is not missed; what the new one has is."""
    stop, steps = threading.Event(), []

    def processes():
        steps.append(1)
        if len(steps) == 2:
            raise ServerGone("killed")
        if len(steps) == 3:
            models.alive = {"sampler": 1}  # it began with one process of the decoder less
        if len(steps) == 5:
            stop.set()
        return models.alive

    models.processes = processes
    Watchdog(models).run(stop)
    assert models.reloaded == []


def test_canaries_and_their_failures_are_counted(models):
    now_s = [0.0]
    dog = Watchdog(models, clock=lambda: now_s[0])
    models.hanging = {"decoder"}
    for _ in range(round((QUIET_S + 1) / LOOK_EVERY_S)):
        dog.look()
        now_s[0] += LOOK_EVERY_S
    assert dog.counts.canaries == {"sampler": 1, "decoder": 1, "in_c++": 1}
    assert {m: n for m, n in dog.counts.failed_canaries.items() if n} == {"decoder": 1}
    assert dog.counts.looked_s > 0


@pytest.mark.parametrize("name", ["sdcm_denoiser", "vae_decoder", "sdcm_sampler"])
def test_a_canary_has_the_smallest_shape_of_the_contract(name):
    contract = contracts(tiny())[name]
    shapes = {tensor.name(): tensor.shape() for tensor in canary(contract)}
    assert set(shapes) == {spec.name for spec in contract.inputs}
    for spec in contract.inputs:
        assert shapes[spec.name] == [1, *(abs(n) for n in spec.dims)]
