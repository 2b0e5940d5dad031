"""First order in 1/N of a data set of frozen targets: closed forms, where it is valid, and what is left out."""

from __future__ import annotations

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.students import LeastSquares, SoftmaxRegression
from kdsim.supervision import Annotators, Dirichlet, Exact, Independent, LabelSmoothing, OneHot
from kdsim.theory import effective_dimension, frozen, predict

POOL = GaussianMixture(classes=3, dimension=3, samples=512).population(0)
STUDENT = SoftmaxRegression(0.05, "centred")
FROZEN = ("frozen_dist_sq", "frozen_excess_risk", "frozen_gap", "frozen_floor", "frozen_floor_excess_risk")


def test_one_hot_without_a_ridge_is_maximum_likelihood():
    """Fisher = Hessian: gap d_eff / N (Akaike), excess risk d_eff / (2N), distance tr H^-1 / N on the range of H."""
    student = SoftmaxRegression()
    found = frozen(student, POOL, OneHot(), POOL.optimum, 200)
    dimension = effective_dimension(student, POOL, POOL.optimum)
    assert dimension == 2 * 4
    assert found.gap == pytest.approx(dimension / 200)
    assert found.excess_risk == pytest.approx(dimension / 400)
    phi = torch.softmax(POOL.x @ POOL.optimum.T, -1)
    blocks = torch.diag_embed(phi) - phi[:, :, None] * phi[:, None, :]
    hessian = torch.einsum("nkl,ni,nj->kilj", blocks, POOL.x, POOL.x).reshape(12, 12) / POOL.size
    assert found.dist_sq == pytest.approx(torch.linalg.pinv(hessian, hermitian=True).trace().item() / 200)


def test_least_squares_with_a_ridge_by_hand():
    """theta_hat - theta* = sum eps_i x_i' (N (G_N + lambda))^-1: tr C E-weighted moments of x, to first order."""
    population = SimplexLinear(samples=64, classes=3, dimension=4).population(0)
    student, ridge, size = LeastSquares(0.3, "centred"), 0.3, 50
    total = 1 - population.p.square().sum(-1)  # tr C of one-hot labels
    x = population.x
    gram = x.T @ x / population.size
    inverse = torch.linalg.inv(gram + ridge * torch.eye(x.shape[1], dtype=x.dtype))
    noise = (x * total[:, None]).T @ x / population.size
    found = frozen(student, population, OneHot(), population.optimum, size)
    assert found.dist_sq == pytest.approx((inverse @ noise @ inverse).trace().item() / size)
    assert found.excess_risk == pytest.approx((gram @ inverse @ noise @ inverse).trace().item() / (2 * size))
    assert found.gap == pytest.approx((inverse @ noise).trace().item() / size)


def test_noise_and_size_scale_everything():
    """Dirichlet(c p) and c + 1 annotators are one-hot over c + 1, and all is inverse to N."""
    whole = frozen(STUDENT, POOL, OneHot(), POOL.optimum, 100)
    for supervision in (Dirichlet(3.0), Annotators(4.0)):
        found = frozen(STUDENT, POOL, supervision, POOL.optimum, 50)
        for name in ("dist_sq", "excess_risk", "gap"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name) / 2), name
    assert frozen(STUDENT, POOL, Exact(), POOL.optimum, 3).valid


def test_the_hessian_of_one_point_fluctuates_as_on_a_finite_pool():
    """N (expansion - its output part) falls from E|H^-1/2 (H_x - H_0) H^-1/2|^2 at N = 1 by (P - N) / (P - 1)."""
    pool = POOL.points(slice(6))
    phi = torch.softmax(pool.x @ pool.optimum.T, -1)
    blocks = torch.diag_embed(phi) - phi[:, :, None] * phi[:, None, :]
    each = torch.einsum("nkl,ni,nj->nkilj", blocks, pool.x, pool.x).reshape(6, 12, 12)
    values, vectors = torch.linalg.eigh(each.mean(0) + 0.05 * torch.eye(12, dtype=torch.float64))
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    whole = (root @ (each - each.mean(0)) @ root).square().sum((-2, -1)).mean().item()
    outputs = 6 * frozen(STUDENT, pool, OneHot(), pool.optimum, 6).expansion
    for size in (1, 4):
        found = size * frozen(STUDENT, pool, OneHot(), pool.optimum, size).expansion - outputs
        assert found == pytest.approx(whole * (6 - size) / 5)


def test_the_whole_pool_leaves_no_fluctuation_of_the_hessian():
    """At N = P the expansion's parameter is the mean squared change of the outputs, E_x tr Cov[theta_hat x]."""
    found = frozen(STUDENT, POOL, OneHot(), POOL.optimum, POOL.size)
    parts = [frozen(STUDENT, POOL, Dirichlet(c), POOL.optimum, POOL.size).expansion for c in (1.0, 3.0)]
    assert parts == pytest.approx([found.expansion / 2, found.expansion / 4])
    half = frozen(STUDENT, POOL, OneHot(), POOL.optimum, POOL.size // 2)
    assert half.expansion > 2 * found.expansion
    with pytest.raises(ConfigError, match="training_set"):
        frozen(STUDENT, POOL, OneHot(), POOL.optimum, POOL.size + 1)


def _predict(student=STUDENT, supervision=None, size: int | None = 400, **keys):
    return predict(
        student, POOL, supervision or OneHot(), 0.01, 2, [1], fresh_with_replacement=False, data_set=size, **keys
    )


def test_prediction_of_a_data_set():
    """SGD's floor is the minimiser's plus first order in the step size; nothing else is claimed."""
    found = _predict()
    fresh = predict(STUDENT, POOL, OneHot(), 0.01, 2, [1])
    assert found.frozen_floor == pytest.approx(found.frozen_dist_sq + fresh.variance)
    assert found.frozen_floor_excess_risk == pytest.approx(found.frozen_excess_risk + fresh.first_order_excess_risk)
    assert found.first_order_floor is None and not found.bound_valid and not found.aim_bound_valid
    assert all(getattr(fresh, name) is None for name in (*FROZEN, "frozen_expansion"))
    permuted = _predict(with_replacement=False)
    assert permuted.frozen_floor is None and permuted.frozen_dist_sq == found.frozen_dist_sq


@pytest.mark.parametrize(
    ("student", "supervision"),
    [
        (STUDENT, LabelSmoothing(0.1)),
        (STUDENT, Independent(0.01)),
        (SoftmaxRegression(0.05, "ordinary"), OneHot()),
    ],
    ids=["biased", "off the simplex", "ordinary ridge"],
)
def test_what_is_not_covered_is_not_predicted(student, supervision):
    found = _predict(student, supervision)
    assert all(getattr(found, name) is None for name in (*FROZEN, "frozen_expansion"))


def test_small_data_sets_are_not_predicted():
    found = _predict(size=10)
    assert found.frozen_expansion > 1
    assert all(getattr(found, name) is None for name in FROZEN)
