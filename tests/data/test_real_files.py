"""The real files, where a machine has them: the folder that the environment variable KDSIM_DATA names."""

import os

import pytest
import torch

from kdsim.data import DATA_SETS, Normalisation, check, read_cifar, read_cifar10h, read_cifar10n
from kdsim.data.cifar import sources
from kdsim.data.human import CIFAR10H_FILE, CIFAR10N_FILE, find_human


@pytest.fixture(scope="module")
def data_dir():
    folder = os.environ.get("KDSIM_DATA")
    if not folder:
        pytest.skip("KDSIM_DATA names no folder with real data")
    if not os.path.isdir(folder):
        pytest.skip(f"KDSIM_DATA = {folder!r} is no folder")
    return folder


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Decoded once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize("name", tuple(DATA_SETS))
def test_real_images(data_dir, cache_dir, name):
    if not sources(name, data_dir):
        pytest.skip(f"KDSIM_DATA has no {name}")
    assert all(finding.fault is None for finding in check(data_dir))
    data = read_cifar(name, data_dir, cache_dir=cache_dir)
    assert data.train_images.shape == (50_000, 3, 32, 32) and data.test_images.shape == (10_000, 3, 32, 32)
    assert read_cifar(name, data_dir, cache_dir=cache_dir).digest == data.digest
    normalisation = Normalisation.of(data.train_images)
    if name == "cifar10":
        found = torch.tensor([normalisation.mean, normalisation.std])
        published = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]])
        assert (found - published).abs().max() < 2e-3  # JPEG copies are a little smoother
        assert data.train_labels[:5].tolist() == [6, 9, 9, 4, 1] and data.test_labels[:5].tolist() == [3, 8, 8, 0, 6]


@pytest.mark.slow
def test_real_human_labels(data_dir, cache_dir):
    if not sources("cifar10", data_dir) or not all(find_human(data_dir, f) for f in (CIFAR10H_FILE, CIFAR10N_FILE)):
        pytest.skip("KDSIM_DATA has no CIFAR-10 with both files of human labels")
    data = read_cifar("cifar10", data_dir, cache_dir=cache_dir)
    votes, labels = read_cifar10h(data_dir, data.test_labels), read_cifar10n(data_dir, data.train_labels)
    entropy = torch.special.entr(votes.probs).sum(1).mean().item()
    assert abs(entropy - 0.15) < 0.01 and 45 < votes.counts.sum(1).double().mean() < 55
    published = {"worse_label": 40.21, "random_label1": 17.23, "random_label2": 18.12, "random_label3": 17.64}
    for name, percent in published.items():  # Wei et al. 2022, table 1
        assert round(100 * labels.noise_rate(name), 2) == percent
    three = torch.stack([labels.labels(f"random_label{number}") for number in (1, 2, 3)])
    median = three.sort(0).values[1]  # where two of three agree, what they say
    agree = (three == median).sum(0) >= 2
    assert torch.equal(labels.labels("aggre_label")[agree], median[agree])
    assert torch.equal(labels.labels("worse_label") != labels.clean, (three != labels.clean).any(0))
