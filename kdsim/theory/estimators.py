"""Constants of any differentiable student at one point, by Hessian-vector products and per-sample Jacobians.

Everything here holds at the parameters that are given. For a student that is not linear in its parameters these are
local numbers: as constants of a region they are estimates, and an estimate never makes a bound valid.

Parameters are one flat vector (P,) in float64, see `kdsim.students.flat`. Eigenvalues come from Lanczos iterations
(ARPACK: Lehoucq, Sorensen, Yang, "ARPACK Users' Guide", SIAM 1998), each with its residual: for a symmetric H and
|v| = 1 some eigenvalue of H lies within |Hv - lambda v| of lambda (Parlett, "The Symmetric Eigenvalue Problem",
theorem 4.5.1). That it is the extreme one is what Lanczos converges to, not what the residual proves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import grad, jacrev, jvp, vmap

from kdsim.config import ConfigError, require_count, require_positive
from kdsim.population import Population
from kdsim.students import LinearStudent, NetworkStudent
from kdsim.students.flat import FlatStudent, flat
from kdsim.supervision.base import Supervision

Student = LinearStudent | NetworkStudent
Product = Callable[[Tensor], Tensor]

LARGEST_DENSE = 2048
"""Number of parameters up to which the whole Hessian is formed where Lanczos cannot reach (interior eigenvalues)."""
BLOCK_NUMBERS = 1 << 23
"""Numbers (float64) that a block of samples may hold in Jacobians or Lanczos vectors."""


class NoMinimiser(ConfigError):
    """Newton's method found no minimiser from this start."""


@dataclass(frozen=True)
class Estimate:
    """A number and what is known of its error.

    Attributes:
        value: the estimate.
        error: |Hv - lambda v|, a bound on the distance to the nearest eigenvalue.
    """

    value: float
    error: float


def hessian_product(objective: Callable[..., Tensor], parameters: Tensor, x: Tensor, q: Tensor) -> Product:
    """v -> H v, H the Hessian of the objective at the parameters (P,): a forward derivative of the gradient."""

    def product(v: Tensor) -> Tensor:
        return jvp(lambda at: grad(objective)(at, x, q), (parameters,), (v,))[1]

    return product


def curvature_range(
    student: Student, population: Population, parameters: Tensor, target: Tensor | None = None
) -> tuple[Estimate, Estimate]:
    """Smallest and largest eigenvalue of the Hessian of the objective over the pool: mu and L at this point.

    mu is negative at a saddle, and zero to rounding for a student with flat directions and no ridge.

    Args:
        target: mean target m(x) (N, K); by default the BCP.
    """
    product = _pool_product(student, population, parameters, target)
    return _extreme(product, len(parameters), "SA"), smoothness(student, population, parameters, target)


def smoothness(student: Student, population: Population, parameters: Tensor, target: Tensor | None = None) -> Estimate:
    """L at this point alone: a dozen products, where mu can take thousands."""
    return _extreme(_pool_product(student, population, parameters, target), len(parameters), "LA")


def smallest_above(
    student: Student, population: Population, parameters: Tensor, threshold: float, target: Tensor | None = None
) -> Estimate:
    """Smallest eigenvalue of the pool Hessian above `threshold` > 0: the local Polyak-Lojasiewicz constant.

    At a minimiser whose flat directions are the tangent of a manifold of minimisers the objective is mu-PL nearby for
    every mu below it (Liu, Zhu, Belkin, "Loss landscapes and optimization in over-parameterized non-linear systems
    and neural networks", 2022). The threshold separates flat directions from slow ones; an interior eigenvalue is out
    of reach of Lanczos without inversion, so the Hessian is formed, by P products.

    Raises:
        ConfigError: P exceeds `LARGEST_DENSE`, or no eigenvalue lies above the threshold.
    """
    require_positive("threshold", threshold)
    require_count("parameters", len(parameters), most=LARGEST_DENSE)
    product = _pool_product(student, population, parameters, target)
    values, vectors = torch.linalg.eigh(_dense(product, len(parameters)))
    above = (values > threshold).nonzero()
    if not len(above):
        raise ConfigError(f"threshold = {threshold!r} is not allowed: must be below {values[-1]:.6g}, the largest one")
    first = int(above[0])
    return _checked(product, values[first].item(), vectors[:, first])


def sample_smoothness(
    student: Student,
    population: Population,
    parameters: Tensor,
    targets: Tensor | None = None,
    *,
    vertices: bool = False,
    iterations: int = 30,
) -> Estimate:
    """L_max at this point: the largest eigenvalue that the Hessian of one sample's objective has, over the pool.

    The Hessian of l(z(x), q) is J'A J + sum_k r_k (Hessian of z_k), r the output gradient: for a student that is not
    linear it depends on the target. It is affine in q, and its largest eigenvalue convex in q, so over all targets of
    the simplex the largest is taken at a vertex (`vertices`): one-hot labels are the worst case of every supervision
    on the simplex. Batched Lanczos with full reorthogonalisation; `error` is how much higher a sample could lie: the
    largest sum of eigenvalue and residual, less the value.

    Args:
        targets: (N, K), one a sample; by default the BCP.
        vertices: the largest over all K one-hot targets of each sample instead.
        iterations: Lanczos steps for each sample.
    """
    require_count("iterations", iterations)
    form = flat(student, population)
    targets = population.p if targets is None else targets
    x = population.x
    if vertices:
        classes = population.classes
        targets = torch.eye(classes, dtype=x.dtype).repeat(len(x), 1)
        x = x.repeat_interleave(classes, 0)
    iterations = min(iterations, len(parameters))
    block = max(1, BLOCK_NUMBERS // (len(parameters) * iterations))
    values, highest = [], []
    for part_x, part_q in zip(x.split(block), targets.split(block), strict=True):
        value, residual = _sample_extremes(form, parameters, part_x, part_q, iterations)
        values.append(value.max())
        highest.append((value + residual).max())
    largest = torch.stack(values).max().item()
    return Estimate(largest, torch.stack(highest).max().item() - largest)


@dataclass(frozen=True)
class NoiseEstimate:
    """tr of the covariance of one batch gradient: exact sums over the pool at the given point.

    Attributes:
        label: E tr(J N J') / b, N the covariance of the output gradient given x.
        inputs: (E|J' r|^2 - |g|^2) / b, r the output gradient at the mean target: zero at an interpolating point.
    """

    label: float
    inputs: float

    @property
    def total(self) -> float:
        """sigma^2 of a batch."""
        return self.label + self.inputs


def network_gradient_noise(
    student: Student, population: Population, supervision: Supervision, parameters: Tensor, batch_size: int = 1
) -> NoiseEstimate:
    """sigma^2 at the given point for a supervision with known mean and covariance, by per-sample Jacobians.

    J (K, P) the Jacobian of the outputs: the gradient of a sample is J' r + ridge part, affine in q through r; the
    ridge carries no noise. As accurate as `Supervision.mean` and `Supervision.covariance`.
    """
    label, residual, mean = gradient_moments(student, population, supervision, parameters)
    return NoiseEstimate(label / batch_size, max(residual - mean.square().sum().item(), 0.0) / batch_size)


def gradient_moments(
    student: Student, population: Population, supervision: Supervision, parameters: Tensor
) -> tuple[float, float, Tensor]:
    """E tr(J N J'), E|J' r|^2 and g = E J' r (P,) of the loss without the ridge, at the given point."""
    form = flat(student, population)
    x = population.x
    jacobian = vmap(jacrev(lambda at, point: form.outputs(at, point[None])[0]), (None, 0))
    noise = form.head.output_noise(form.outputs(parameters, x), supervision.covariance(population.p))  # (N, K, K)
    residual = form.head.output_gradient(form.outputs(parameters, x), supervision.mean(population.p))  # (N, K)
    block = max(1, BLOCK_NUMBERS // (len(parameters) * population.classes))
    label, square, mean = 0.0, 0.0, torch.zeros_like(parameters)
    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        jac = jacobian(parameters, x[rows])  # (n, K, P)
        gram = jac @ jac.transpose(1, 2)
        label += (noise[rows] * gram).sum().item()
        sample = torch.einsum("nkp,nk->np", jac, residual[rows])
        square += sample.square().sum().item()
        mean += sample.sum(0)
    return label / len(x), square / len(x), mean / len(x)


def minimise(
    student: Student,
    population: Population,
    start: Tensor,
    target: Tensor | None = None,
    *,
    tolerance: float = 1e-8,
    iterations: int = 2000,
) -> Tensor:
    """A local minimiser of the objective over the pool with gradient norm at most `tolerance`, (P,) float64.

    Trust-region Newton with conjugate gradients (Nocedal, Wright, "Numerical Optimization", 2nd edition, algorithm
    7.2), which leaves saddles; then, where rounding of the value stops it, Newton steps.

    Raises:
        NoMinimiser: the tolerance is not reached; the message states the gradient norm that was.
    """
    form = flat(student, population)
    x, target = population.x, population.p if target is None else target
    value = lambda at: form.objective(at, x, target)  # noqa: E731
    gradient = grad(value)
    if not torch.isfinite(value(start.to(torch.float64))):
        raise NoMinimiser("the objective over the pool is not finite at the student's start")
    found = scipy.optimize.minimize(
        lambda at: value(torch.from_numpy(at)).item(),
        start.to(torch.float64).numpy(),
        jac=lambda at: gradient(torch.from_numpy(at)).numpy(),
        hessp=lambda at, v: hessian_product(form.objective, torch.from_numpy(at), x, target)(
            torch.from_numpy(v)
        ).numpy(),
        method="trust-ncg",
        options={"gtol": tolerance / 2, "maxiter": iterations, "max_trust_radius": 100.0},
    )
    point = torch.from_numpy(np.array(found.x))
    for _ in range(5):
        slope = gradient(point)
        if slope.norm() <= tolerance:
            return point
        if len(point) > LARGEST_DENSE:
            break
        hessian = _dense(hessian_product(form.objective, point, x, target), len(point))
        step = torch.linalg.lstsq(hessian, slope[:, None], driver="gelsd").solution[:, 0]
        if gradient(point - step).norm() >= slope.norm():
            break
        point = point - step
    reached = gradient(point).norm().item()
    if reached > tolerance:
        raise NoMinimiser(
            f"tolerance = {tolerance:g} is not reached in {iterations} iterations: the gradient norm is {reached:.3g}"
        )
    return point


def _pool_product(student: Student, population: Population, parameters: Tensor, target: Tensor | None) -> Product:
    form = flat(student, population)
    return hessian_product(form.objective, parameters, population.x, population.p if target is None else target)


def pool_eigenvectors(student: Student, population: Population, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors (columns) of the pool Hessian at the BCP, formed by P products.

    Raises:
        ConfigError: P exceeds `LARGEST_DENSE`.
    """
    require_count("parameters", len(parameters), most=LARGEST_DENSE)
    return torch.linalg.eigh(_dense(_pool_product(student, population, parameters, None), len(parameters)))


def _dense(product: Product, size: int) -> Tensor:
    hessian = torch.stack([product(v) for v in torch.eye(size, dtype=torch.float64)])
    return (hessian + hessian.T) / 2


def _extreme(product: Product, size: int, which: str) -> Estimate:
    """Extreme eigenvalue by ARPACK, started at a fixed vector: "LA" the largest, "SA" the smallest."""
    if size <= 2:  # ARPACK wants more dimensions than eigenvalues
        values, vectors = torch.linalg.eigh(_dense(product, size))
        at = -1 if which == "LA" else 0
        return _checked(product, values[at].item(), vectors[:, at])
    operator = LinearOperator((size, size), lambda v: product(torch.from_numpy(v).flatten()).numpy(), dtype=np.float64)
    first = np.random.default_rng(0).standard_normal(size)
    if not operator.matvec(first).any():  # H is zero (one class): ARPACK finds nothing to start from
        return Estimate(0.0, 0.0)
    values, vectors = eigsh(operator, k=1, which=which, v0=first, ncv=min(size, 64), maxiter=100 * size)
    return _checked(product, values[0], torch.from_numpy(vectors[:, 0].copy()))


def _checked(product: Product, value: float, vector: Tensor) -> Estimate:
    vector = vector / vector.norm()
    return Estimate(float(value), (product(vector) - value * vector).norm().item())


def _sample_extremes(
    form: FlatStudent, parameters: Tensor, x: Tensor, q: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Largest Ritz value of each sample's Hessian and its residual, (n,): Lanczos on all samples at once."""

    def one(at_x: Tensor, at_q: Tensor, v: Tensor) -> Tensor:
        return hessian_product(form.objective, parameters, at_x[None], at_q[None])(v)

    product = vmap(one)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(parameters), generator=generator, dtype=torch.float64).expand(len(x), -1)
    v = v / v.norm(dim=-1, keepdim=True)
    basis = v[:, None]  # (n, j, P), orthonormal
    images = product(x, q, v)[:, None]  # H times the basis
    for _ in range(iterations - 1):
        w = images[:, -1]
        for _ in range(2):  # twice is enough (Parlett)
            w = w - torch.einsum("njp,nj->np", basis, torch.einsum("njp,np->nj", basis, w))
        norm = w.norm(dim=-1, keepdim=True)
        # An exhausted Krylov space leaves rounding: a zero vector adds the Ritz value zero, which H has anyway
        # unless the space is everything, and the residual says what is lost.
        v = torch.where(norm > 1e-10 * images.flatten(1).norm(dim=-1, keepdim=True), w / norm, torch.zeros_like(w))
        basis = torch.cat([basis, v[:, None]], 1)
        images = torch.cat([images, product(x, q, v)[:, None]], 1)
    projected = torch.einsum("nip,njp->nij", basis, images)
    values, rotations = torch.linalg.eigh((projected + projected.transpose(1, 2)) / 2)
    top = rotations[:, :, -1]
    vector = torch.einsum("njp,nj->np", basis, top)
    image = torch.einsum("njp,nj->np", images, top)
    value = values[:, -1]
    return value, (image - value[:, None] * vector).norm(dim=-1)
