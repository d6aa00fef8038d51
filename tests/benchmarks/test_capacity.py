"""The search for a machine's capacity, over pretended machines."""

import pytest

from benchmarks.capacity import Level, level_of, plot, search


def level(sessions: int, capacity: int) -> Level:
    """100 blocks, of which more are late than may be beyond the capacity."""
    late = 0 if sessions <= capacity else 5
    return Level(sessions, [100.0] * (100 - late) + [300.0] * late, [150.0], [20.0], [], 200.0)


@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 5, 8, 13, 16])
def test_the_greatest_level_that_holds_is_found(capacity):
    levels = list(search(lambda n: level(n, capacity), 0.01, most=16))
    assert max((one.sessions for one in levels if one.holds(0.01)), default=0) == capacity
    tried = [one.sessions for one in levels]
    assert len(set(tried)) == len(tried) <= 8
    assert capacity == 16 or min(n for n in tried if n > capacity) == capacity + 1


def test_errors_are_too_much():
    assert not Level(1, [1.0], [1.0], [], ["ServerUnavailable()"], 200.0).holds(0.01)
    assert Level(1, [], [], [], [], 200.0).missed == 1


def test_what_came_while_sessions_began_does_not_count(tmp_path):
    kinds = {"first frame": "start", "latency": "block", "barge-in": "stop", "session": "error"}

    def sample(time_s, name, ms, error=None):
        return {"time_s": time_s, "type": kinds[name], "name": name, "ms": ms, "error": error}

    samples = [
        sample(100.0, "first frame", 400.0),
        sample(101.0, "latency", 900.0),
        sample(111.0, "latency", 90.0),
        sample(112.0, "barge-in", 30.0),
        sample(113.0, "session", 0.0, "StreamBroken()"),
    ]
    found = level_of(samples, 3, 10.0, 200.0)
    assert found == Level(3, [90.0], [400.0], [30.0], ["StreamBroken()"], 200.0)
    assert found.summary()["block_p99_ms"] == 90 and found.summary()["errors"] == 1
    plot([found, level(1, 1)], "a machine", tmp_path / "capacity.png")
    assert (tmp_path / "capacity.png").stat().st_size > 1000
