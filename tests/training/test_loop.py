"""A run's steps do not depend on how its batches are spread, and it leaves something to look at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.film import read_frames
from training.loop import Loop, LoopConfig, averaged_weights


def run(folder, accumulate):
    """Five steps of a small regression on random batches."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    config = LoopConfig(steps=5, accumulate=accumulate, warmup_steps=1, report_every=1)
    loop = Loop(folder, model, config)

    def losses():
        x = torch.randn(16, 4)
        return {"loss": (loop.model(x) - x.sum(1, keepdim=True)).square().mean()}

    for _ in loop:
        loop.update(losses)
    return loop


def weights(folder):
    return torch.cat([w.flatten() for w in averaged_weights(folder)[0].values()])


def test_two_processes_step_as_one_that_accumulates_two_batches(tmp_path):
    run(tmp_path / "one", 2)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launch, "--nproc-per-node", "2", __file__, str(tmp_path / "two")]
    subprocess.run(command, check=True, env={**os.environ, "ACCELERATE_USE_CPU": "true"})
    run(tmp_path / "single", 1)
    torch.testing.assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"))
    assert not torch.allclose(weights(tmp_path / "single"), weights(tmp_path / "one"))
    lines = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]  # of one process


def test_tensorboard_shows_curves_pictures_and_films(tmp_path):
    loop = run(tmp_path, 1)
    frames = np.zeros((10, 16, 32, 3), np.uint8)
    frames[5:, :, :16] = 200
    loop.show("sheet", frames[9])
    loop.film("talk", frames)
    loop.board.flush()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert set(events.Tags()["images"]) == {"sheet", "talk"}
    assert events.Images("talk")[0].encoded_image_string.startswith(b"GIF89a")
    film = list(read_frames(tmp_path / "samples" / "talk_000005.mp4"))
    assert len(film) == 10 and film[9][8, 4].mean() > 150 > film[0][8, 4].mean()


def test_what_is_no_weight_is_not_averaged(tmp_path):
    model = torch.nn.Linear(2, 1)
    model.register_buffer("index", torch.arange(10), persistent=False)
    loop = Loop(tmp_path, model, LoopConfig(steps=100))
    for _ in loop:
        loop.update(lambda: {"loss": loop.model(torch.randn(4, 2)).square().mean()})
    assert loop.averaged.get_buffer("index").tolist() == list(range(10))
    assert not torch.equal(loop.averaged.weight, model.weight)


if __name__ == "__main__":
    run(Path(sys.argv[1]), accumulate=1)
