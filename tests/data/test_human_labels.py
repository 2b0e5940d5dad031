"""CIFAR-10H and CIFAR-10N from npz files that the test writes: what is read, and what is refused in one line."""

import hashlib
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsim.config import ConfigError
from kdsim.data import human, read_cifar10h, read_cifar10n

IMAGES = 40


def refusal(function, *args):
    with pytest.raises(ConfigError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def votes():
    """Labels, and 50 votes for each image, most for its label."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(IMAGES) % 10)
    counts = rng.multinomial(10, np.full(10, 0.1), IMAGES).astype(np.int16)
    counts[np.arange(IMAGES), labels] += 40
    return torch.from_numpy(labels), counts, (counts / counts.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture
def label_sets():
    rng = np.random.default_rng(2)
    clean = rng.permutation(np.arange(IMAGES) % 10).astype(np.int8)
    noisy = {name: np.where(np.arange(IMAGES) < 4 * k, (clean + 1) % 10, clean).astype(np.int8)
             for k, name in enumerate(human.LABEL_SETS)}  # fmt: skip
    return {human.CLEAN: clean, **noisy}


@pytest.mark.parametrize("place", [".", "cifar10"])
def test_votes_are_read(tmp_path, votes, place):
    labels, counts, probs = votes
    (tmp_path / place).mkdir(exist_ok=True)
    path = tmp_path / place / "cifar10h.npz"
    np.savez(path, counts=counts, probs=probs)
    found = read_cifar10h(tmp_path, labels)
    assert found.counts.dtype == torch.int64 and (found.counts.numpy() == counts).all()
    assert found.probs.dtype == torch.float64 and found.probs.sum(1).sub(1).abs().max() < 1e-15
    assert np.abs(found.probs.numpy() - probs).max() < 1e-7
    assert found.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_votes_that_are_refused(tmp_path, votes):
    labels, counts, probs = votes
    negative, nobody = counts.copy(), counts.copy()
    negative[3, 2], nobody[5] = -1, 0
    cases = [
        ({"counts": counts}, "has no probs, only counts"),
        ({"counts": counts[1:], "probs": probs}, "counts is (39, 10) int16, must be (40, 10) integers"),
        ({"counts": counts.astype(float), "probs": probs}, "integers"),
        ({"counts": counts, "probs": probs[:, 1:]}, "probs is (40, 9)"),
        ({"counts": negative, "probs": probs}, "negative"),
        ({"counts": nobody, "probs": probs}, "without votes"),
        ({"counts": counts, "probs": np.roll(probs, 1, 0)}, "probs are not counts"),
        ({"counts": counts, "probs": np.where(probs > 0.5, np.nan, probs)}, "probs are not counts"),
        ({"counts": np.roll(counts, 1, 0), "probs": np.roll(probs, 1, 0)}, "another order"),
    ]
    for arrays, text in cases:
        np.savez(tmp_path / "cifar10h.npz", **arrays)
        assert text in refusal(read_cifar10h, tmp_path, labels)


def test_labellings_are_read(tmp_path, label_sets):
    np.savez(tmp_path / "cifar10n.npz", **label_sets)
    found = read_cifar10n(tmp_path, torch.from_numpy(label_sets[human.CLEAN]).long())
    assert tuple(found.sets) == human.LABEL_SETS
    for k, name in enumerate(human.LABEL_SETS):
        assert found.labels(name).dtype == torch.int64 and (found.labels(name).numpy() == label_sets[name]).all()
        assert found.noise_rate(name) == pytest.approx(4 * k / IMAGES)
    assert "nearest: worse_label" in refusal(found.labels, "worst_label")


def test_labellings_that_are_refused(tmp_path, label_sets):
    labels = torch.from_numpy(label_sets[human.CLEAN]).long()
    name = "random_label2"
    cases = [
        ({key: value for key, value in label_sets.items() if key != name}, f"has no {name}"),
        (label_sets | {name: label_sets[name][1:]}, f"{name} is (39,)"),
        (label_sets | {name: label_sets[name] + 1}, "must lie in 0 .. 9"),
        (label_sets | {name: label_sets[name] - 1}, "must lie in 0 .. 9"),
        (label_sets | {name: label_sets[name].astype(float)}, "integers"),
        (label_sets | {human.CLEAN: label_sets["random_label3"]}, "differs from the label of 16 training images"),
    ]
    for arrays, text in cases:
        np.savez(tmp_path / "cifar10n.npz", **arrays)
        assert text in refusal(read_cifar10n, tmp_path, labels)


def test_files_that_are_no_npz(tmp_path, label_sets, monkeypatch):
    labels = torch.from_numpy(label_sets[human.CLEAN]).long()
    path = tmp_path / "cifar10n.npz"
    assert "must hold it or cifar10/cifar10n.npz" in refusal(read_cifar10n, tmp_path, labels)
    np.savez(path, **label_sets)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert "not a whole npz" in refusal(read_cifar10n, tmp_path, labels)
    path.write_bytes(whole)
    monkeypatch.setattr(human, "_SIZE_LIMIT", 100)
    assert "at most 100" in refusal(read_cifar10n, tmp_path, labels)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_entries_are_not_run(tmp_path, label_sets):
    marker = tmp_path / "executed"
    np.savez(tmp_path / "cifar10n.npz", **label_sets | {"aggre_label": np.array([Hostile(marker)] * IMAGES, object)})
    assert "not a whole npz" in refusal(read_cifar10n, tmp_path, torch.from_numpy(label_sets[human.CLEAN]).long())
    assert not marker.exists()


def test_the_example_makes_both_files_from_what_the_authors_publish(tmp_path, votes, label_sets):
    """Counts as .npy; a dictionary of arrays as .pt, from which nothing else is unpickled."""
    example = runpy.run_path(str(Path(__file__).parents[2] / "docs/examples/human_labels.py"))
    labels, counts, probs = votes
    np.save(tmp_path / "counts.npy", counts.astype(np.int64))
    torch.save({name: array.astype(np.int64) for name, array in label_sets.items()}, tmp_path / "human.pt")
    example["main"]([str(tmp_path), "--votes", f"{tmp_path}/counts.npy", "--labels", f"{tmp_path}/human.pt"])
    found = read_cifar10h(tmp_path, labels)
    assert (found.counts.numpy() == counts).all() and np.abs(found.probs.numpy() - probs).max() < 1e-7
    people = read_cifar10n(tmp_path, torch.from_numpy(label_sets[human.CLEAN].astype(np.int64)))
    assert all((people.labels(name).numpy() == label_sets[name]).all() for name in human.LABEL_SETS)
    torch.save({"clean_label": Path("/")}, tmp_path / "other.pt")
    with pytest.raises(pickle.UnpicklingError):
        example["write_labels"](tmp_path / "other.pt", tmp_path)
