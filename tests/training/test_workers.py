"""Workers give what their jobs give, and end when their parent is killed."""

import os
import select
import signal
import subprocess
import sys

import pytest

from training.workers import done

PARENT = """
from tests.training.test_workers import say_who_and_stay
from training.workers import done

if __name__ == "__main__":
    list(done(say_who_and_stay, [0], 1))
"""


def squared(number):
    return number**2


def say_who_and_stay(_):
    print(os.getpid(), flush=True)
    signal.pause()


def test_results_come_with_their_jobs():
    assert dict(done(squared, [1, 2, 3], 2)) == {1: 1, 2: 4, 3: 9}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of such a death")
def test_a_killed_parent_leaves_no_worker_behind(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), "client"])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        assert select.select([worker], [], [], 30)[0], "the worker lives on"
        os.close(worker)
