"""Replicas: each walks a path of its own, whatever runs beside it, and leaves torch as it was."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace

import pytest
import torch
from tiny_training import tiny, visits

from kdsim.config import ConfigError
from kdsim.data import CropFlip
from kdsim.engines import GradientDescent
from kdsim.results.store import Store
from kdsim.study import trainings
from kdsim.study.trainings import Fitting, Training
from kdsim.teachers import Deterministic
from kdsim.training import Recipe, Walk
from kdsim.training.replicas import REPLICA_THREADS, as_a_replica, replica_threads, replicas_at_once, side_by_side


@pytest.fixture
def two_threads():
    """Two replicas run side by side, each on one thread."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def trainer(replicas: int, **more):
    recipe = Recipe(
        step_size=0.02, optimiser=GradientDescent(0.9), augmentation=CropFlip(4), precision="float32",
    )  # fmt: skip
    return tiny(5, labelled=True, recipe=recipe, replicas=replicas, **more)


@pytest.mark.slow
def test_a_replica_does_not_depend_on_how_many_there_are(two_threads):
    """Bit for bit, side by side; and with one thread one after the other."""
    two, three = trainer(2).run(), trainer(3).run()
    for name, curve in two.record.curves.items():
        assert torch.equal(curve, three.record.curves[name][:, :2]) and torch.isfinite(curve).all()
    for name, values in two.record.test.items():
        assert torch.equal(values, three.record.test[name][:2])
    for first, second in zip(two.networks, three.networks, strict=False):
        assert first.replica == second.replica
        assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    torch.set_num_threads(1)
    in_turn = trainer(3).run()
    for name, curve in three.record.curves.items():
        assert torch.equal(curve, in_turn.record.curves[name])


def test_replicas_differ_in_all_that_is_random():
    """First weights, order of the images, targets, crops; the images themselves are shared."""
    subject = tiny(12, replicas=2)
    shared = subject.task(subject.pools())
    first, second = (Walk(shared, replica) for replica in range(2))
    assert (first.flat.parameters != second.flat.parameters).double().mean() > 0.9
    (index, q), (other_index, other_q) = (visits(subject, replica) for replica in range(2))
    assert not torch.equal(index, other_index)
    position = {number: place for place, number in enumerate(index.tolist())}
    both = [(q[position[n]], other_q[place]) for place, n in enumerate(other_index.tolist()) if n in position]
    assert len(both) > 100 and any(not torch.equal(*pair) for pair in both)
    cropped = replace(shared, augmentation=CropFlip(4))
    choices = [Walk(cropped, replica)._visits()[2] for replica in range(2)]
    assert not torch.equal(*choices)


def test_another_seed_is_another_training():
    first, second = (tiny(4, seed=seed).run() for seed in (3, 4))
    assert not torch.equal(first.networks[0].weights["head.weight"], second.networks[0].weights["head.weight"])


@pytest.mark.parametrize(
    ("asked", "replicas", "threads", "at_once"),
    [(None, 1, 1, 1), ("", 3, 1, 2), ("1", 2, 1, 2), ("2", 1, 2, 1), ("2", 3, 2, 1), ("3", 2, 3, 1)],
)
def test_a_replica_has_one_thread_or_as_many_as_are_asked_for(
    two_threads, monkeypatch, asked, replicas, threads, at_once
):
    """Whether it is alone or not, and whatever torch has: so that its rounding is its own."""
    if asked is None:
        monkeypatch.delenv(REPLICA_THREADS, raising=False)
    else:
        monkeypatch.setenv(REPLICA_THREADS, asked)
    with side_by_side(replicas, torch.device("cpu")) as each:
        found = each(lambda number: torch.get_num_threads(), range(replicas))
    assert found == [threads] * replicas and torch.get_num_threads() == 2
    assert replicas_at_once(replicas) == at_once
    with as_a_replica("cpu"):
        assert torch.get_num_threads() == threads
    with as_a_replica("cuda"):
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "99999"])
def test_other_numbers_of_threads_are_refused(monkeypatch, text):
    monkeypatch.setenv(REPLICA_THREADS, text)
    with pytest.raises(ConfigError, match=rf"^KDSIM_REPLICA_THREADS = '{text}' is not allowed: must be 1 to 1024$"):
        replica_threads()


def test_fits_and_looks_at_teachers_have_as_many(two_threads, monkeypatch, tmp_path):
    seen = []
    looked_at = Fitting(Deterministic(trainer(2)))
    monkeypatch.setattr(trainings, "fitted_teachers", lambda *arguments: seen.append(torch.get_num_threads()))
    assert looked_at.run(Store(tmp_path), lambda *counts: None, lambda: False, {}) is None
    student = Training(replace(trainer(2), supervision=Deterministic(trainer(2))))
    assert student.run(Store(tmp_path), lambda *counts: None, lambda: False, {}) is None
    assert seen == [1, 1] and torch.get_num_threads() == 2


@pytest.mark.parametrize(("replicas", "threads"), [(1, 1), (2, 1), (3, 2)])
def test_torch_is_left_as_it_was(two_threads, replicas, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    trainer(replicas).run()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()


def test_one_that_fails_ends_the_others(two_threads, tmp_path, monkeypatch):
    """They save their states and leave; the error arrives, and the threads are as before."""
    advance, steps = Walk.advance, []

    def failing(walk: Walk) -> None:
        if walk.replica == 1 and walk.step == 3:
            raise RuntimeError("enough")
        advance(walk)
        steps.append(walk.step)

    monkeypatch.setattr(Walk, "advance", failing)
    with pytest.raises(RuntimeError, match="enough"):
        tiny(400, replicas=3).run(checkpoints=tmp_path)
    assert torch.get_num_threads() == 2 and len(steps) < 40
    (file,) = tmp_path.iterdir()
    assert file.stem.endswith("r000")  # the third one did not start


@pytest.fixture
def python_handles_sigint():
    """As in a terminal: a job in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_of_the_caller_ends_all(two_threads, tmp_path, python_handles_sigint):
    """SIGINT without a handler raises in the main thread, which waits; the replicas do not train on to their end."""
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 6:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tiny(200, replicas=2).run(checkpoints=tmp_path, progress=progress)
    assert len(calls) < 100 and torch.get_num_threads() == 2
    assert len(list(tmp_path.iterdir())) >= 1


@pytest.mark.slow
def test_told_to_stop_side_by_side_it_goes_on_bit_for_bit(two_threads, tmp_path):
    subject, asked = trainer(3), iter(range(1000))
    assert subject.run(checkpoints=tmp_path, stop=lambda: next(asked) >= 7) is None
    assert torch.get_num_threads() == 2
    found, expected = subject.run(checkpoints=tmp_path), subject.run()
    for first, second in zip(found.networks, expected.networks, strict=True):
        assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    for name, curve in found.record.curves.items():
        assert torch.equal(curve, expected.record.curves[name])
