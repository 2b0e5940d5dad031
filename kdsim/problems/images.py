"""Images of the shape of CIFAR with exactly known class probabilities, drawn by a fixed renderer; nothing downloaded.

A latent u has a known class posterior, and an image is drawn from u and from nuisance variables v that are independent
of (u, y). What the class says about the image it says through u:

    p(y | image) = E[p(y | u) | image],   because y - u - image is a Markov chain,

and where the image determines u the right side is p(y | u), in closed form. The renderer is built so that it does
(`kdsim.problems.image_renderer` says why), and images have 3072 numbers for at most 8 + 33 + 9 per piece of clutter.

*What rounding to 8 bits costs.* From a uint8 image u is known up to an error e, so its BCP differs from p(y | u) by
the mean of p(y | u + e) - p(y | u) over what the image leaves open: to first order zero, and in size at most about
|grad_u p| |e|. tests/problems/test_images.py bounds it: with the rounding taken as noise of variance 1/12 of a level
and all nuisance unknown, the posterior of u linearised at the truth has a standard deviation of a few thousandths in
a typical image. `Population.p` is p(y | u).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from kdsim import simplex
from kdsim.config import ConfigError, choose, require, require_between, require_count
from kdsim.population import Population
from kdsim.problems.base import Problem, Split
from kdsim.problems.image_renderer import SIDE, Form, nuisance_size, quantised, render
from kdsim.problems.long_tail import balanced_prior, exponential_prior, under_prior  # noqa: F401 - for its readers
from kdsim.rng import MAX_VISITS, Draws, Stream

KEY = 11
CHUNK = 256
"""Images rendered at once: their planes stay in a shared cache."""

COMPONENT_SLOT = 8  # after the slots of at most 8 normals

Part = Literal["train", "validation", "test"]
PARTS = {part: number for number, part in enumerate(get_args(Part))}


@dataclass(frozen=True, eq=False)
class LatentMixture:
    """u | y = k ~ N(a m_k, t^2 I) with a^2 + t^2 = 1.

    Under equal priors every coordinate of u has mean 0 and variance 1 whatever t is, since the m_k do.

    Attributes:
        means: m_k, (K, m) float64, every coordinate of mean 0 and variance 1 over the classes.
        log_ratio: log(a / t), the logarithm of the ratio of signal to noise.
    """

    means: Tensor
    log_ratio: float

    @property
    def spread(self) -> float:
        """t, the standard deviation of u within a class."""
        return 1 / math.hypot(1, math.exp(self.log_ratio))

    def latents(self, component: Tensor, normals: Tensor) -> Tensor:
        """u = t ((a / t) m_k + z) for components k (N,) and standard normals z (N, m). (N, m)."""
        return self.spread * (math.exp(self.log_ratio) * self.means[component] + normals)

    def bcp(self, latent: Tensor, prior: Tensor) -> Tensor:
        """p(y = k | u) under the given prior (K,) by Bayes' rule, in the log domain. (N, m) -> (N, K).

        log p(u | k) = (a / t) <m_k, u / t> - (a / t)^2 |m_k|^2 / 2, up to what all classes share.
        """
        scaled = math.exp(self.log_ratio) * self.means  # (K, m)
        return torch.softmax(latent / self.spread @ scaled.T - scaled.square().sum(1) / 2 + prior.log(), -1)


@dataclass(frozen=True)
class Images(Problem):
    """Figures whose form tells the class, in any place, size and colour, before texture and clutter.

    The latent is a Gaussian mixture (`LatentMixture`) with random class means, so that some classes are alike and
    others far apart. `entropy` sets its spread: the mean entropy of the BCP over the *training* pool is `entropy`
    exactly, and that of the other pools of the same prior up to sampling. Labels are drawn from the BCP.

    Image i of a part is a function of (seed, part, i), of the fields and of the spread: it depends neither on the batch
    nor on how many are drawn. `pool` draws any others, as many as one likes. A training pool of another size has
    another spread; to compare sizes on the same images draw one pool and use `SGD.training_set`.

    No student in this project is exactly p: `Population.optimum` is None.

    Attributes:
        classes: number of classes K.
        samples: number of training images N.
        validation_samples, test_samples: numbers of the other images.
        dimension: number of latent coordinates m, from 1 to 8; the rest of the form is fixed.
        entropy: mean entropy of the BCP over the training pool in nats, in (0, H(prior)).
        imbalance: prior of the most over that of the least frequent class, >= 1. Priors fall exponentially,
            prior_k proportional to imbalance^(-k / (K - 1)), in training and validation (`exponential_prior`); in the
            test pool they are equal, as is usual for long tails. `bcp` and `under_prior` give the BCP under any other
            prior.
        clutter: number of pieces of clutter behind the figure, 0 to 32.
        colour: saturation of all colours, 0 (grey images) to 1.
        shift: the figure's centre is uniform within +-shift pixels, 0 to 6.
    """

    classes: int = 10
    samples: int = 50_000
    validation_samples: int = 5_000
    test_samples: int = 10_000
    dimension: int = 6
    entropy: float = 0.5
    imbalance: float = 1.0
    clutter: int = 4
    colour: float = 1.0
    shift: float = 4.0

    name: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        require_count("classes", self.classes, least=2)
        for part in PARTS:
            require_count(_size_field(part), getattr(self, _size_field(part)), most=MAX_VISITS)
        require_count("dimension", self.dimension, most=len(Form._fields))
        require_count("clutter", self.clutter, least=0, most=32)
        require_between("imbalance", self.imbalance, 1, 1e6)
        require_between("colour", self.colour, 0, 1)
        require_between("shift", self.shift, 0, 6)
        most = simplex.entropy(self.prior).item()
        inside = f"in (0, {most:.6g}) nats; the upper end is the entropy of the prior"
        require(0 < self.entropy < most, "entropy", self.entropy, inside)

    @property
    def prior(self) -> Tensor:
        """Prior of the classes in training and validation, (K,) float64; class 0 is the most frequent."""
        return exponential_prior(self.classes, self.imbalance)

    @property
    def balanced_prior(self) -> Tensor:
        """Equal priors 1/K, those of the test pool. (K,) float64."""
        return balanced_prior(self.classes)

    def prior_of(self, part: Part) -> Tensor:
        """The prior from which a part is drawn and under which its `p` is the BCP, (K,)."""
        choose("part", part, PARTS)
        return self.balanced_prior if part == "test" else self.prior

    def population(self, seed: int) -> Population:
        """The training pool: x uint8 (N, 3, 32, 32), p (N, K) float64, y (N,) int64."""
        return self.pool(seed, "train", range(self.samples))

    def split(self, seed: int) -> Split:
        """Training, validation and test pools."""
        return Split(*(self.pool(seed, part, range(getattr(self, _size_field(part)))) for part in PARTS))

    def pool(self, seed: int, part: Part, index: Iterable[int] | Tensor, device: str = "cpu") -> Population:
        """The images of these numbers >= 0, which may lie beyond the size of the part.

        Args:
            seed: of the classes and of all images.
            part: "train", "validation" or "test"; no two parts share random numbers.
            index: (n,) numbers of images.
            device: where the images are drawn, and where the pool lies. Another device may round a pixel to the
                neighbouring level; p and y agree to rounding.
        """
        prior = self.prior_of(part).to(device)
        index = _checked(index, device)
        u = self.latents(seed, part, index)
        p = self.mixture(seed, device).bcp(u, prior)
        y = _inverse_distribution(p, self._draws(seed, part, index, Stream.LABEL).uniform(0)[0])
        return Population(x=self.images(seed, part, index, u), p=p, y=y)

    def latents(self, seed: int, part: Part, index: Iterable[int] | Tensor) -> Tensor:
        """u of the images of these numbers, (n, m) float64, on the device of `index`."""
        index = _checked(index)
        component, normals = self._noise(seed, part, index)
        return self.mixture(seed, index.device).latents(component, normals)

    def images(self, seed: int, part: Part, index: Iterable[int] | Tensor, latent: Tensor) -> Tensor:
        """Images uint8 (n, 3, 32, 32) of any latents (n, m), with the nuisance of these numbers."""
        index = _checked(index)
        x = torch.empty(len(index), 3, SIDE, SIDE, dtype=torch.uint8, device=index.device)
        for rows in torch.arange(len(index), device=index.device).split(CHUNK):
            v = self.nuisance(seed, part, index[rows])
            x[rows] = quantised(render(latent[rows], v, self.shift, self.colour))
        return x

    def nuisance(self, seed: int, part: Part, index: Iterable[int] | Tensor) -> Tensor:
        """Nuisance variables of the images of these numbers: uniform, independent, (n, S) float64."""
        draws = self._draws(seed, part, _checked(index), Stream.AUGMENTATION)
        return torch.stack([draws.uniform(slot)[0] for slot in range(nuisance_size(self.clutter))], 1)

    def mixture(self, seed: int, device: str | torch.device = "cpu") -> LatentMixture:
        """The classes in the latent space: means and the spread that gives the training pool its entropy."""
        mixture = _mixture(self, seed)
        return LatentMixture(mixture.means.to(device), mixture.log_ratio)

    def _draws(self, seed: int, part: Part, index: Tensor, stream: Stream) -> Draws:
        key, row = torch.tensor([[_key(seed)]]), torch.tensor([[choose("part", part, PARTS)]])
        return Draws(key.to(index.device), row.to(index.device), index[None], stream, torch.float64)

    def _noise(self, seed: int, part: Part, index: Tensor) -> tuple[Tensor, Tensor]:
        """Component (n,) and standard normals (n, m) of each latent."""
        draws = self._draws(seed, part, index, Stream.INDEX)
        prior = self.prior_of(part).to(index.device).expand(len(index), -1)
        component = _inverse_distribution(prior, draws.uniform(COMPONENT_SLOT)[0])
        return component, draws.normals(self.dimension)[:, 0].T  # (m, 1, n) -> (n, m)


@lru_cache(maxsize=8)
def _mixture(problem: Images, seed: int) -> LatentMixture:
    """Class means drawn at random, and the ratio of signal to noise found on the log scale."""
    draws = problem._draws(seed, "train", torch.arange(problem.classes), Stream.INIT)
    means = draws.normals(problem.dimension)[:, 0].T  # (K, m)
    means = means - means.mean(0)
    means = means / means.square().mean(0).sqrt()

    component, normals = problem._noise(seed, "train", torch.arange(problem.samples))

    def excess(log_ratio: float) -> float:
        mixture = LatentMixture(means, log_ratio)
        p = mixture.bcp(mixture.latents(component, normals), problem.prior)
        return simplex.entropy(p).mean().item() - problem.entropy

    low, high = -12.0, 40.0  # the entropy of the prior to some 1e-10, and one-hot to rounding
    if not excess(low) > 0 > excess(high):
        most = simplex.entropy(problem.prior).item()
        allowed = f"further inside (0, {most:.6g}): this close to the upper end it is lost to rounding"
        raise ConfigError(f"entropy = {problem.entropy!r} is not allowed: must be {allowed}")
    return LatentMixture(means, brentq(excess, low, high, xtol=1e-13))


def _key(seed: int) -> int:
    """The seed of these draws, 63 bits: not the user's, whose numbers belong to the engines."""
    require_count("seed", seed, least=0)
    return int(np.random.SeedSequence([seed, KEY]).generate_state(1, np.uint64)[0]) >> 1


def _inverse_distribution(p: Tensor, uniform: Tensor) -> Tensor:
    """One class ~ p (N, K) a row from uniforms (N,) in (0, 1); never one with p_k = 0. (N,) int64."""
    cdf = p.cumsum(-1)
    return (uniform[:, None] >= cdf / cdf[:, -1:]).sum(-1)  # the last entry is exactly one


def _checked(index: Iterable[int] | Tensor, device: str | None = None) -> Tensor:
    """Numbers of images as int64 (n,)."""
    index = torch.as_tensor(index if isinstance(index, Tensor) else list(index), device=device)
    allowed = f"a list of one or more integers from 0 to {MAX_VISITS - 1}"
    require(index.ndim == 1 and len(index) > 0, "index of shape", tuple(index.shape), allowed)
    require(index.dtype in (torch.int32, torch.int64), "index of type", index.dtype, allowed)
    outside = index[(index < 0) | (index >= MAX_VISITS)]
    require(len(outside) == 0, "index", outside[:1].tolist(), allowed)
    return index.long()


def _size_field(part: str) -> str:
    return "samples" if part == "train" else f"{part}_samples"
