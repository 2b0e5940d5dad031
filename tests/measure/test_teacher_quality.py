"""Quality of teachers: against sums by hand, known posteriors, and what theory says of one-hot labels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.measure.teacher_quality import quality
from kdsim.population import Population
from kdsim.rng import Draws, Stream
from kdsim.simplex import gini
from kdsim.students import SoftmaxRegression
from kdsim.supervision import Dirichlet, LabelSmoothing, OneHot
from kdsim.supervision.base import Batch
from kdsim.theory.gradient_noise import gradient_noise

N, K = 40, 4


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pool(count: int = N) -> Population:
    p = torch.softmax(3 * uniform(count, K), -1)
    y = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    return Population(torch.zeros(count, 1), p, y)


def samples(count: int, seed: int = 5) -> Tensor:
    return torch.log_softmax(3 * uniform(count, N, K, seed=seed), -1)


def test_all_by_hand():
    """Loops over images and samples."""
    known, log_probs = pool(), samples(3)
    found = quality(log_probs, known, "bcp")
    total = dict.fromkeys(("accuracy", "loss", "brier", "bcp_l2", "bcp_kl", "bias_sq", "nu", "gradient_noise"), 0.0)
    for n in range(N):
        q, p, y = log_probs[:, n].exp(), known.p[n], int(known.y[n])
        m = sum(q) / 3
        total["accuracy"] += float(m.argmax() == y)
        total["loss"] -= math.log(m[y])
        total["brier"] += sum((m[k] - float(k == y)).item() ** 2 for k in range(K))
        total["bcp_l2"] += math.dist(m.tolist(), p.tolist())
        total["bcp_kl"] += sum((p[k] * (p[k] / m[k]).log()).item() for k in range(K))
        total["bias_sq"] += math.dist(m.tolist(), p.tolist()) ** 2
        total["nu"] += torch.cov(q.T).trace().item() / K
        total["gradient_noise"] += sum(math.dist(each.tolist(), p.tolist()) ** 2 for each in q) / 3
    for name, value in total.items():
        assert found[name] == pytest.approx(value / N, rel=1e-9), name
    assert found["gradient_noise"] == pytest.approx(found["bias_sq"] + 2 / 3 * K * found["nu"])


def test_one_sample_has_no_variance():
    found = quality(samples(1), pool(), "bcp")
    assert found["nu"] == 0 and found["gradient_noise"] == pytest.approx(found["bias_sq"])
    exact = pool()
    perfect = quality(exact.p.log()[None], exact, "bcp")
    for name in ("nu", "bias_sq", "gradient_noise", "bcp_l2", "bcp_kl"):
        assert perfect[name] == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_gradient_noise_of_one_hot_labels_is_theirs():
    """E[1 - |p|^2] in the limit of many samples, and sigma*^2 of theory where |x|^2 = 1. 20,000 labels, |z| < 4."""
    exact, count = pool(), 20_000
    drawn = torch.multinomial(exact.p, count, replacement=True, generator=torch.Generator().manual_seed(3)).T  # (S, N)
    log_probs = torch.nn.functional.one_hot(drawn, K).double().log()
    found = quality(log_probs, exact, "bcp")
    expected = gini(exact.p)  # (N,)
    distances = (log_probs.exp() - exact.p).square().sum(-1)  # (S, N)
    error = distances.mean(1).std().item() / math.sqrt(count)
    assert abs(found["gradient_noise"] - expected.mean().item()) < 4 * error
    assert found["nu"] * K == pytest.approx(expected.mean().item(), abs=6 * error)


@pytest.mark.parametrize("supervision", [OneHot(), Dirichlet(5.0), LabelSmoothing(0.2)])
def test_gradient_noise_is_that_of_theory_at_the_bcp(supervision):
    """A softmax regression that is exactly p, on inputs of length one, taught by a noise model; |z| < 4.

    Theory's sigma^2 counts the variance over x of the mean gradient as well: it is the second moment less the squared
    length of that mean. Draws of the targets stand where posterior samples do.
    """
    count = 4000
    x = torch.nn.functional.normalize(uniform(N, 3, seed=7) - 0.5, dim=-1)
    theta = 4 * (uniform(K, 3, seed=8) - 0.5)
    p = torch.softmax(x @ theta.T, -1)
    exact = Population(x, p, p.argmax(-1), theta)
    sigma_sq = gradient_noise(SoftmaxRegression(), exact, supervision, theta)
    mean_gradient = (p - supervision.mean(p)).T @ x / N  # (K, d)
    expected = sigma_sq + mean_gradient.square().sum().item()
    numbers = (torch.tensor([[0]]), torch.arange(count)[:, None], torch.arange(N)[None])
    draws = Draws(*numbers, Stream.LABEL, torch.float64, start=0)
    batch = Batch(index=numbers[2].expand(count, N), x=None, p=p.expand(count, N, K), y=None)
    q = supervision.sample(batch, draws).q  # (S, N, K)
    found = quality(q.log(), exact, "bcp")
    error = (q - p).square().sum(-1).mean(1).std().item() / math.sqrt(count)
    assert abs(found["gradient_noise"] - expected) <= 4 * error + 1e-12


@pytest.mark.slow
def test_moments_are_unbiased_over_the_posterior():
    """Means over 3000 teachers of S = 2 samples each, Dirichlet about p, against the exact moments; |z| < 4."""
    exact = pool(6)
    law = torch.distributions.Dirichlet(8 * exact.p)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = law.sample((3000, 2)).log()  # (teachers, S, N, K)
    found = [quality(teacher, exact, "bcp") for teacher in drawn]
    variance = law.variance.sum(-1).mean().item()
    for name, expected in (("nu", variance / K), ("gradient_noise", variance), ("bias_sq", variance / 2)):
        values = torch.tensor([each[name] for each in found], dtype=torch.float64)
        assert abs(values.mean().item() - expected) < 4 * values.std().item() / math.sqrt(len(values)), name


def test_with_labels_alone_nothing_is_said_of_p():
    found = quality(samples(2), pool(), "labels")
    assert {name for name, value in found.items() if value is None} == {"bcp_l2", "bcp_kl", "bias_sq", "gradient_noise"}
    assert found["nu"] > 0
    assert found.keys() == quality(samples(2), pool(), "people").keys()


@pytest.mark.parametrize(
    ("log_probs", "message"),
    [
        (samples(1)[0], "shape of log_probs"),
        (samples(1)[:, :-1], "shape of log_probs"),
        (samples(2)[:0], "shape of log_probs"),
        (samples(1) + 0.1, "must be normalised: the logarithm of a sum is 0.1"),
        (samples(1) * math.nan, "must be normalised"),
    ],
)
def test_bad_input_is_refused(log_probs, message):
    with pytest.raises(ConfigError, match=message):
        quality(log_probs, pool(), "bcp")
