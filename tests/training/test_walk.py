"""A step of a replica is a step of plain PyTorch on the visits that the engines have too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_network import TINY
from tiny_training import BATCH, Heard, tiny, visits
from torch.nn import functional

from kdsim.config import ConfigError, digest
from kdsim.data import CropFlip, Normalisation
from kdsim.engines import Adam, GradientDescent, StepDecay
from kdsim.networks import build
from kdsim.rng import Draws, Stream
from kdsim.supervision import Dirichlet, OneHot
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, fit_teacher
from kdsim.training import Recipe, Walk
from kdsim.training.remembered import Remembered

STEPS = 20
EPSILON = torch.finfo(torch.float32).eps
CASES = [
    (GradientDescent(0.9, weight_decay=5e-4), 0.05, "SGD", {"momentum": 0.9, "weight_decay": 5e-4}),
    (GradientDescent(0.9, True), 0.02, "SGD", {"momentum": 0.9, "nesterov": True}),
    (GradientDescent(), 0.1, "SGD", {}),
    (Adam(weight_decay=1e-3), 1e-3, "Adam", {"weight_decay": 1e-3}),
]


def task(steps: int = STEPS, teachers=(), **changes):
    trainer = tiny(steps, **changes)
    found = trainer.task(trainer.pools())
    return trainer, replace(found, teachers=teachers, supervision=None if teachers else found.supervision)


def whole(walk: Walk) -> Walk:
    while not walk.finished:
        walk.advance()
    return walk


def equal(first: object, second: object) -> bool:
    """Whether two states are bit for bit the same."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[name], second[name]) for name in first)
    if isinstance(first, torch.Tensor):
        return torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))
    return first == second


def test_first_weights_are_those_of_the_network_under_a_seed_of_their_own():
    trainer, shared = task()
    before = torch.get_rng_state()
    walk = Walk(shared, 1)
    assert torch.equal(torch.get_rng_state(), before)
    key = torch.tensor([[trainer.seed]]), torch.tensor([[1]]), torch.tensor([[0]])
    high, low = (Draws(*key, Stream.INIT, torch.float64).words(slot).item() for slot in (0, 1))
    with torch.random.fork_rng():
        torch.manual_seed((high << 31) ^ low)
        expected = build(TINY, 3).state_dict()
    assert equal(walk.flat.state_dict(), dict(expected))
    assert not torch.equal(Walk(shared, 0).flat.parameters, walk.flat.parameters)


@pytest.mark.slow
@pytest.mark.parametrize(("optimiser", "step_size", "name", "arguments"), CASES)
def test_steps_are_those_of_torch(optimiser, step_size, name, arguments):
    """20 steps of torch.optim on a falling schedule, 1.6 epochs, with a batch across the border.

    Each step of the plain loop starts where the replica stands, with the optimiser's own memory of all steps before:
    from rounding alone two free runs part by hundredths of the way in 20 steps, at the kinks of the ReLUs (so do two
    of plain torch, in float32 and in float64). A step agrees to 2e-5 of its length and the parameters' own rounding;
    the largest difference seen is a sixth of that.
    """
    recipe = Recipe(step_size=step_size, optimiser=optimiser, schedule=StepDecay((0.4, 0.7)), precision="float32")
    trainer, shared = task(recipe=recipe, supervision=Dirichlet(2.0), targets="fresh")
    walk, network = Walk(shared, 1), build(TINY, 3).to(memory_format=torch.channels_last)
    torch_optimiser = getattr(torch.optim, name)(network.parameters(), lr=step_size, **arguments)
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch_optimiser, [8, 14], 0.1)
    pool = trainer.pools().train
    index, q = visits(trainer, 1, Dirichlet(2.0))
    x = Normalisation.of(pool.x)(pool.x).contiguous(memory_format=torch.channels_last)
    while not walk.finished:
        start = walk.flat.state_dict()
        network.load_state_dict(start)
        batch = slice(walk.step * BATCH, (walk.step + 1) * BATCH)
        torch_optimiser.zero_grad()
        functional.cross_entropy(network(x[index[batch]]), q[batch]).backward()
        torch_optimiser.step()
        schedule.step()
        walk.advance()
        found, expected = walk.flat.state_dict(), network.state_dict()
        assert found.keys() == expected.keys() == start.keys()
        for kind in ("running", "weight", "bias"):
            before, mine, torchs = (
                torch.cat([state[key].flatten() for key in expected if kind in key])
                for state in (start, found, expected)
            )
            limit = 2e-5 * (torchs - before).norm() + EPSILON * torchs.norm()
            assert (mine - torchs).norm() < limit, (walk.step, kind)
        assert all(torch.equal(found[key], expected[key]) for key in expected if "num_batches" in key)
    assert walk.step == STEPS


@pytest.mark.parametrize("fill", ["zero", "reflect"])
def test_student_and_teacher_see_the_crops_of_their_visits(fill, monkeypatch):
    """Student, teacher and labels of every visit, more than an epoch and three chunks of them."""
    monkeypatch.setattr("kdsim.training.walk.CHUNK_STEPS", 7)
    crop, seen, normalised = CropFlip(4, fill), [], []

    def teacher(images, numbers):
        seen.append(images.clone())
        return images.float().mean((2, 3))

    heard = Heard()
    recipe = Recipe(augmentation=crop, precision="float32", step_size=0.01)
    trainer, shared = task(17, labelled=True, teachers=(teacher,), loss=heard, recipe=recipe, evaluations=1)
    walk = Walk(shared, 2)
    hook = walk.module.register_forward_pre_hook(lambda module, inputs: normalised.append(inputs[0].clone()))
    while walk.step < 16:  # the last step is followed by an evaluation
        walk.advance()
    hook.remove()
    index, _ = visits(trainer, 2)
    pool = trainer.pools().train
    visit = torch.arange(16 * BATCH)[None]
    draws = Draws(torch.tensor([[trainer.seed]]), torch.tensor([[2]]), visit, Stream.AUGMENTATION, torch.float32)
    expected = crop(pool.x[index[: 16 * BATCH]], draws)
    assert torch.equal(torch.cat(seen), expected)
    assert not torch.equal(expected, pool.x[index[: 16 * BATCH]])
    assert torch.equal(torch.cat(normalised), Normalisation.of(pool.x)(expected))
    assert torch.equal(torch.cat([call[1] for call in heard.calls]), expected.float().mean((2, 3)))
    assert torch.equal(torch.cat([call[2] for call in heard.calls]), pool.y[index[: 16 * BATCH]])


def test_images_with_known_class_probabilities_are_not_mirrored():
    recipe = Recipe(augmentation=CropFlip(4), precision="float32")
    trainer, shared = task(recipe=recipe)
    assert shared.augmentation is None
    assert tiny(labelled=True, recipe=recipe).task(trainer.pools()).augmentation == CropFlip(4)


@pytest.mark.parametrize("targets", ["frozen", "fresh"])
def test_the_loss_gets_log_probabilities_labels_and_the_epoch(targets):
    """One-hot targets: log-probabilities of zero and minus infinity, and a gradient all the same."""
    heard = Heard()
    trainer, shared = task(18, loss=heard, targets=targets)
    walk = whole(Walk(shared, 0))
    assert walk.diverged_at == -1
    index, q = visits(trainer, 0)
    pool = trainer.pools().train
    assert torch.equal(torch.cat([call[1] for call in heard.calls]).exp(), q)
    assert torch.equal(torch.cat([call[2] for call in heard.calls]), pool.y[index])
    assert [call[3] for call in heard.calls] == pytest.approx([1 + step * BATCH / 200 for step in range(18)])
    again = {number: set() for number in index.tolist()}
    for number, target in zip(index.tolist(), q.argmax(-1).tolist(), strict=True):
        again[number].add(target)
    drawn_twice_alike = all(len(classes) == 1 for classes in again.values())
    assert drawn_twice_alike == (targets == "frozen")


def test_replica_learns_from_its_teacher():
    """Replica r has teacher r modulo their number."""
    teachers = tuple(lambda images, numbers, k=k: torch.full((len(images), 3), float(k)) for k in range(2))
    for replica, own in ((0, 0), (1, 1), (2, 0), (5, 1)):
        heard = Heard()
        _, shared = task(1, teachers=teachers, loss=heard)
        whole(Walk(shared, replica))
        assert (heard.calls[0][1] == own).all()


@pytest.mark.slow
def test_images_that_stay_are_asked_about_once():
    """The teacher is asked once about each image, and says of a visit what it says of that image."""
    asked, heard = [], Heard()

    def predict(images):  # two samples
        asked.append(len(images))
        return torch.stack([images.float().mean((2, 3)), images.float().amax((2, 3))])

    trainer, shared = task(2 * 200 // BATCH, loss=heard)
    remembered = Remembered(predict, shared.train.x)
    shared = replace(shared, teachers=(remembered,), supervision=None)
    for replica in range(3):
        heard.calls.clear()
        whole(Walk(shared, replica))
        index, _ = visits(trainer, replica)
        x = shared.train.x[index].float()
        expected = torch.stack([x.mean((2, 3)), x.amax((2, 3))])
        assert torch.equal(torch.cat([call[1] for call in heard.calls], 1), expected[:, : len(heard.calls) * BATCH])
    assert sum(asked) == 200


@pytest.mark.parametrize("labelled", [False, True])
def test_crops_are_asked_about_each_time(labelled):
    recipe = Recipe(augmentation=CropFlip(4), precision="float32")
    base = tiny(200 // BATCH + 1, labelled=labelled, recipe=recipe)
    teacher = Deterministic(training=base)
    trainer = replace(base, supervision=teacher)
    pools = base.pools()
    network = Walk(base.task(pools), 0).trained(digest(base), "", {"loss": 1.0})
    fitted = [fit_teacher(teacher, [network], pools, 0)]
    assert isinstance(trainer.task(pools, fitted).teachers[0], Remembered) is not labelled
    short = replace(trainer, recipe=replace(base.recipe, epochs=0.5))
    assert not isinstance(short.task(pools, fitted).teachers[0], Remembered)


def test_chunks_change_nothing(monkeypatch):
    recipe = Recipe(augmentation=CropFlip(4), precision="float32")
    _, shared = task(10, labelled=True, recipe=recipe)
    expected = whole(Walk(shared, 0)).state()
    monkeypatch.setattr("kdsim.training.walk.CHUNK_STEPS", 3)
    assert equal(whole(Walk(shared, 0)).state(), expected)


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_a_state_does_not_change_when_the_replica_goes_on(stop):
    """Stopped between two evaluations, after which the mean loss of the steps so far is part of the state."""
    recipe = Recipe(optimiser=GradientDescent(0.9), precision="float32")
    _, shared = task(10, recipe=recipe, evaluations=3)
    walk = Walk(shared, 0)
    while walk.step < stop:
        walk.advance()
    state = walk.state()
    expected = whole(walk).state()
    assert equal(whole(Walk(shared, 0, state)).state(), expected)


def test_an_evaluation_leaves_no_trace():
    _, shared = task(4)
    walk = Walk(shared, 0)
    walk.advance()
    before, grad = walk.state(), walk.flat.gradient.clone()
    first = walk.scores(shared.validation, "bcp")
    assert walk.module.training and equal(walk.state(), before) and torch.equal(walk.flat.gradient, grad)
    assert walk.scores(shared.validation, "bcp") == first


def test_the_best_parameters_are_put_back_with_their_statistics():
    _, shared = task(8, evaluations=8)
    walk, seen = Walk(shared, 0), {}
    while not walk.finished:
        walk.advance()
        seen[walk.step] = walk.scores(shared.validation, "bcp")
    walk.use_best()
    assert walk.scores(shared.validation, "bcp") == seen[walk.best["step"]]


def test_a_state_of_another_network_or_optimiser_is_refused():
    _, shared = task(2)
    state = Walk(shared, 0).state()
    momentum = replace(shared, recipe=replace(shared.recipe, optimiser=GradientDescent(0.9)))
    others = [replace(shared, network="resnet20"), momentum, replace(shared, evaluations=1)]
    for other in others:
        with pytest.raises(
            ConfigError, match=r"the stored state of replica 0 is not one of a (tiny|resnet20) in.*: delete"
        ) as caught:
            Walk(other, 0, state)
        assert "\n" not in str(caught.value)
    for found in ({}, {**state, "curves": None}, {**state, "more": 1}):
        with pytest.raises(ConfigError, match="the stored state of replica 0"):
            Walk(shared, 0, found)


def test_noise_on_known_probabilities_reaches_the_targets():
    """The supervision sees p, not the labels: one-hot targets of images are drawn from p."""
    trainer, _ = task(targets="fresh")
    index, q = visits(trainer, 0, OneHot())
    assert not torch.equal(q.argmax(-1), trainer.pools().train.y[index])


@pytest.mark.slow
def test_dropout_stands_before_the_head_in_training_only():
    """A share of the features is zero, others at each step and in each replica, and the rest is scaled up."""
    trainer = replace(tiny(6, evaluations=6), student=ImageNetwork(TINY, dropout=0.4))
    shared, seen = trainer.task(trainer.pools()), {}
    for replica in range(2):
        walk, plain = Walk(shared, replica), Walk(replace(shared, dropout=0.0), replica)
        inputs = [[], []]
        for subject, into in zip((walk, plain), inputs, strict=True):
            subject.module.head.register_forward_pre_hook(
                lambda module, given, into=into, subject=subject: into.append(
                    (subject.module.training, given[0].detach())
                )
            )
            whole(subject)
        trained, full = ([x for training, x in each if training] for each in inputs)
        kept = trained[0] != 0
        torch.testing.assert_close(trained[0][kept] * 0.6, full[0][kept])  # the first step starts alike
        seen[replica] = [x != 0 for x in trained]
        share = torch.stack(seen[replica])[:, :, (full[0] > 0).all(0)].double().mean().item()
        assert abs(share - 0.6) < 0.05
        assert all((x != 0).double().mean() > 0.9 for training, x in inputs[0] if not training)
    assert not torch.equal(seen[0][0], seen[0][1]) and not torch.equal(seen[0][0], seen[1][0])


def test_dropout_goes_on_bit_for_bit():
    trainer = replace(tiny(6), student=ImageNetwork(TINY, dropout=0.4))
    shared = trainer.task(trainer.pools())
    walk = Walk(shared, 1)
    for _ in range(3):
        walk.advance()
    state = walk.state()
    assert equal(whole(Walk(shared, 1, state)).state(), whole(walk).state())
