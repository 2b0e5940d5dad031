"""A training that was stopped or killed, at whatever step, ends bit for bit as an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import same, tiny

from kdsim.data import CropFlip
from kdsim.engines import Adam, GradientDescent, StepDecay
from kdsim.trainer import StudentTrainer, Trained
from kdsim.training import Recipe
from kdsim.training.checkpoints import Checkpoints

MOMENTUM, ADAM = GradientDescent(0.9, weight_decay=5e-4), Adam()
STEPS = 9


def recipe(precision: str, optimiser: GradientDescent | Adam) -> Recipe:
    crop = CropFlip(4) if precision == "bfloat16" else CropFlip(4, "reflect", flip=False)
    step_size = 0.01 if optimiser is MOMENTUM else 1e-3
    return Recipe(
        step_size=step_size, optimiser=optimiser, schedule=StepDecay(), augmentation=crop, precision=precision
    )


def after(count: int):
    """A `stop` that says True when it has been asked so often."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= count


def in_pieces(trainer: StudentTrainer, folder: Path, seed: int, **more) -> tuple[Trained, int]:
    """Run it, stopped at random steps, until it is over; and the number of runs."""
    generator, calls, trained = random.Random(seed), 0, None
    while trained is None:
        calls += 1
        assert calls < 50
        trained = trainer.run(checkpoints=folder, stop=after(generator.randint(2, 6)), **more)
    return trained, calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "optimiser", "targets", "replicas", "labelled"),
    [
        ("bfloat16", MOMENTUM, "frozen", 2, True),
        ("float32", ADAM, "fresh", 1, True),
        ("float32", MOMENTUM, "fresh", 2, False),
        ("bfloat16", ADAM, "frozen", 1, False),
    ],
)
def test_stopped_at_random_steps(tmp_path, precision, optimiser, targets, replicas, labelled):
    trainer = tiny(
        STEPS, labelled=labelled, recipe=recipe(precision, optimiser), targets=targets, replicas=replicas, evaluations=3
    )
    expected = trainer.run()
    found, calls = in_pieces(trainer, tmp_path, seed=replicas)
    assert calls > 1 and same(found, expected)
    assert len(list(tmp_path.iterdir())) == replicas
    trainer.delete_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_training_is_not_trained_again(tmp_path):
    trainer, seen = tiny(4, replicas=2), []
    expected = trainer.run(checkpoints=tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    again = trainer.run(checkpoints=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert same(again, expected) and seen == [(8, 8)]
    assert again.record.seconds.tolist() == pytest.approx(expected.record.seconds.tolist(), abs=1)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_stopped_in_its_last_step_or_before_its_first(tmp_path):
    trainer = tiny(4)
    assert trainer.run(checkpoints=tmp_path, stop=lambda: True) is None and list(tmp_path.iterdir()) == []
    expected = trainer.run()
    found = trainer.run(checkpoints=tmp_path, stop=after(4))  # asked before the first step and after each
    assert found is not None and same(found, expected)


@pytest.mark.slow
def test_progress_counts_what_was_done_before(tmp_path):
    """Replica-steps, never falling, from where the run starts to all there are."""
    trainer, seen = tiny(4, replicas=3), []
    whole = []
    trainer.run(progress=lambda done, total: whole.append((done, total)))
    assert whole == [(done, 12) for done in range(13)]
    assert trainer.run(checkpoints=tmp_path, stop=after(8)) is None  # the second replica in its third step
    trainer.run(checkpoints=tmp_path, progress=lambda done, total: seen.append(done))
    assert seen == list(range(7, 13))


def test_a_diverged_training_is_resumed_as_diverged(tmp_path):
    trainer = tiny(8, recipe=Recipe(step_size=1e30, precision="float32"), replicas=2)
    expected = trainer.run()
    assert expected.record.diverged_at.tolist() == [2, 2]
    found, _ = in_pieces(trainer, tmp_path, 1)
    assert same(found, expected)


def aged(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From here on every state that is read took so long."""
    read = Checkpoints.read
    monkeypatch.setattr(Checkpoints, "read", lambda *place: (found := read(*place)) and found | {"seconds": seconds})


SCRIPT = """
import os, signal, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import torch
torch.set_num_threads(1)
from test_resume import killed
folder, steps, kill_at = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def progress(done, total):
    if done == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
killed(steps).run(checkpoints=folder, progress=progress, checkpoint_seconds=0.0)
"""


def killed(steps: int) -> StudentTrainer:
    """What the process trains that is killed."""
    return tiny(steps, labelled=True, recipe=recipe("bfloat16", MOMENTUM), replicas=2, targets="fresh")


def start(folder: Path, steps: int, kill_at: int = -1) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    arguments = [os.pathsep.join(map(str, (here, here.parent))), str(folder), str(steps), str(kill_at)]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(tmp_path):
    """Killed in its second replica; everything before that step is on disk."""
    trainer, seen = killed(6), []
    assert start(tmp_path, 6, kill_at=9).wait() == -signal.SIGKILL
    assert torch.get_num_threads() == 1
    found = trainer.run(checkpoints=tmp_path, progress=lambda done, total: seen.append(done))
    assert seen == [8, 9, 10, 11, 12]
    assert same(found, trainer.run())
