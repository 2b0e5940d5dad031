"""Images: the contract of a problem where it applies, the posterior of the latent, and the renderer.

Statistical checks have fixed seeds and limits of z = 4.5 or 5 standard errors.
"""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

from kdsim import problems
from kdsim.config import ConfigError, decode, digest, encode
from kdsim.problems import IMAGE_PROBLEMS, PROBLEMS, Images
from kdsim.problems.image_renderer import NUISANCE, SIDE, Form, form, nuisance_size, quantised, render
from kdsim.problems.images import Split, under_prior
from kdsim.simplex import entropy

SMALL = Images(samples=600, validation_samples=200, test_samples=300)
LONG_TAIL = Images(classes=4, samples=700, dimension=3, entropy=0.3, imbalance=50.0, clutter=0, colour=0.0, shift=0.0)
CASES = (SMALL, LONG_TAIL, Images(classes=2, samples=300, dimension=1, entropy=0.4, clutter=1))


def scenes(problem, count, part="test", seed=0):
    """Latents (count, m) and nuisance (count, S)."""
    return problem.latents(seed, part, range(count)), problem.nuisance(seed, part, range(count))


def z_scores(count, mean, variance):
    return (count - mean) / variance.sqrt()


# The contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("problem", CASES, ids=lambda problem: digest(problem)[:4])
class TestContract:
    def test_shapes_and_types(self, problem):
        pool = problem.population(0)
        n, k = problem.samples, problem.classes
        assert pool.x.shape == (n, 3, SIDE, SIDE) and pool.x.dtype == torch.uint8
        assert pool.p.shape == (n, k) and pool.p.dtype == torch.float64
        assert pool.y.shape == (n,) and pool.y.dtype == torch.int64
        assert (pool.size, pool.classes, pool.optimum) == (n, k, None)
        assert (pool.p.sum(-1) - 1).abs().max() < 1e-12 and pool.p.min() >= 0

    @pytest.mark.slow
    def test_the_seed_decides_the_pool(self, problem):
        first, again, other = problem.population(7), problem.population(7), problem.population(8)
        for field in ("x", "p", "y"):
            assert torch.equal(getattr(first, field), getattr(again, field)), field
            assert not torch.equal(getattr(first, field), getattr(other, field)), field

    @pytest.mark.slow
    def test_global_generators_are_left_alone(self, problem):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        problem.population(3)
        assert torch.equal(before[0], torch.get_rng_state())
        assert (before[1] == np.random.get_state()[1]).all()

    @pytest.mark.slow
    def test_the_mean_entropy_is_as_ordered(self, problem):
        for seed in range(2):
            assert abs(problem.population(seed).mean_entropy - problem.entropy) < 1e-10

    def test_encode_and_decode(self, problem):
        again = decode(json.loads(json.dumps(encode(problem))), IMAGE_PROBLEMS)
        assert again == problem and digest(again) == digest(problem)

    @pytest.mark.parametrize("seed", [-1, 1.5, True, None])
    def test_bad_seed(self, problem, seed):
        with pytest.raises(ConfigError, match=r"seed = .* must be an integer >= 0"):
            problem.population(seed)


def test_listed_apart_from_problems_with_linear_inputs_and_documented():
    assert (Images,) == IMAGE_PROBLEMS and not set(IMAGE_PROBLEMS) & set(PROBLEMS)
    assert len({problem.name for problem in PROBLEMS + IMAGE_PROBLEMS}) == len(PROBLEMS + IMAGE_PROBLEMS)
    keys = {sys.modules[problem.__module__].KEY for problem in PROBLEMS + IMAGE_PROBLEMS}
    assert len(keys) == len(PROBLEMS + IMAGE_PROBLEMS)  # problems share no random numbers
    assert {"IMAGE_PROBLEMS", "Images"} <= set(problems.__all__)
    assert all(field.name in Images.__doc__ for field in dataclasses.fields(Images))


BAD = [
    ({"classes": 1}, r"classes = 1 .* an integer >= 2"),
    ({"samples": 0}, r"samples = 0 .* >= 1"),
    ({"validation_samples": 1.0}, r"validation_samples = 1.0 .* an integer, as 1"),
    ({"test_samples": 2**43}, r"test_samples = \d+ .* <= 4398046511104"),
    ({"dimension": 9}, r"dimension = 9 .* <= 8"),
    ({"dimension": 0}, r"dimension = 0 .* >= 1"),
    ({"entropy": 0.0}, r"entropy = 0.0 .* in \(0, 2.30259\) nats; .* entropy of the prior"),
    ({"entropy": math.nan}, r"entropy = nan .* in \(0, 2.30259\)"),
    ({"entropy": 2.0, "imbalance": 100.0}, r"entropy = 2.0 .* in \(0, 1.64401\) nats"),
    ({"imbalance": 0.5}, r"imbalance = 0.5 .* in \[1, 1e\+06\]"),
    ({"clutter": -1}, r"clutter = -1 .* >= 0"),
    ({"clutter": 33}, r"clutter = 33 .* <= 32"),
    ({"colour": 1.1}, r"colour = 1.1 .* in \[0, 1\]"),
    ({"shift": 6.5}, r"shift = 6.5 .* in \[0, 6\]"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_bad_fields(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Images(**fields)
    assert "\n" not in str(caught.value)


BAD_INDEX = [
    ([-1], r"index = \[-1\] .* from 0 to 4398046511103"),
    ([2**42], r"index = \[4398046511104\]"),
    ([[1, 2]], r"index of shape = \(1, 2\)"),
    ([], r"index of shape = \(0,\) .* one or more"),
    ([0.5], r"index of type = torch.float32 .* integers"),
]


@pytest.mark.parametrize(("index", "message"), BAD_INDEX)
def test_bad_index(index, message):
    with pytest.raises(ConfigError, match=message):
        SMALL.pool(0, "test", index)


def test_bad_part():
    with pytest.raises(ConfigError, match=r"unknown part 'tests' \(nearest: test\)"):
        SMALL.pool(0, "tests", [0])


def test_entropy_lost_to_rounding():
    most = entropy(Images().prior).item()
    with pytest.raises(ConfigError, match=r"is not allowed: must be further inside \(0, 2.30259\)"):
        Images(entropy=math.nextafter(most, 0), samples=50).mixture(0)


@pytest.mark.parametrize("value", [1e-9, 2.3])
def test_entropy_near_the_ends(value):
    assert abs(Images(entropy=value, samples=500).population(0).mean_entropy - value) < 1e-6 * value


# Pools ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_image_depends_on_its_number_alone():
    pool = SMALL.population(5)
    for index in ([17], list(range(599, 0, -7)), torch.arange(3, 300)):
        part = SMALL.pool(5, "train", index)
        rows = torch.as_tensor(index)
        for field in ("x", "p", "y"):
            assert torch.equal(getattr(part, field), getattr(pool, field)[rows]), field
    beyond = SMALL.pool(5, "train", range(600, 800))
    assert torch.isin(pool.x.flatten(1).sum(1), beyond.x.flatten(1).sum(1)).float().mean() < 0.1


@pytest.mark.slow
def test_parts_share_classes_and_no_image():
    split = SMALL.split(2)
    assert isinstance(split, Split)
    assert (split.train.size, split.validation.size, split.test.size) == (600, 200, 300)
    assert torch.equal(split.train.x, SMALL.population(2).x)
    every = torch.cat([part.x for part in split]).flatten(1)
    assert len(every.unique(dim=0)) == len(every)
    nuisance = torch.cat([SMALL.nuisance(2, part, range(100)) for part in ("train", "validation", "test")])
    assert len(nuisance.flatten().unique()) > 0.999 * nuisance.numel()


def test_other_parts_have_the_entropy_up_to_sampling():
    problem = dataclasses.replace(SMALL, samples=20_000)  # no image is rendered here
    mixture, prior = problem.mixture(0), problem.prior
    for part in ("validation", "test"):
        values = entropy(mixture.bcp(problem.latents(0, part, range(20_000)), prior))
        assert abs(values.mean() - problem.entropy) < 4.5 * (2 / 20_000) ** 0.5 * values.std()


def test_priors_fall_exponentially():
    prior = LONG_TAIL.prior
    assert abs(prior.sum() - 1) < 1e-14 and abs(prior[0] / prior[-1] - 50) < 1e-10
    np.testing.assert_allclose(prior[1:] / prior[:-1], 50 ** (-1 / 3))
    np.testing.assert_allclose(Images().prior, 0.1)
    assert torch.equal(LONG_TAIL.prior_of("validation"), prior)
    np.testing.assert_allclose(LONG_TAIL.prior_of("test"), 0.25)


# The posterior ----------------------------------------------------------------------------


def test_bcp_is_bayes_rule():
    mixture, u = LONG_TAIL.mixture(1), LONG_TAIL.latents(1, "train", range(200))
    spread, prior = mixture.spread, LONG_TAIL.prior.numpy()
    signal = math.sqrt(1 - spread**2)
    log_joint = np.stack(
        [math.log(prior[k]) + multivariate_normal(signal * mixture.means[k], spread**2).logpdf(u) for k in range(4)], 1
    )
    expected = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
    np.testing.assert_allclose(mixture.bcp(u, LONG_TAIL.prior), expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(LONG_TAIL.pool(1, "train", range(200)).p, expected, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("what", ["component", "label"])
def test_components_and_labels_follow_the_bcp(part, what):
    """The component that generated u, which `bcp` never sees, has the law p(u); so has the label drawn from p."""
    problem = dataclasses.replace(LONG_TAIL, samples=20_000)
    index = torch.arange(20_000)
    prior = problem.prior_of(part)
    p = problem.mixture(4).bcp(problem.latents(4, part, index), prior)
    if what == "component":
        y = problem._noise(4, part, index)[0]
    else:
        index, p = index[:2000], p[:2000]
        y = problem.pool(4, part, index).y
    hits = nn.functional.one_hot(y, 4).double()
    for weight in (torch.ones_like(p), p, p.flip(1)):
        z = z_scores((weight * hits).sum(0), (weight * p).sum(0), (weight**2 * p * (1 - p)).sum(0))
        assert z.abs().max() < 4.5
    if what == "component":
        assert (z_scores(hits.sum(0), prior * len(p), prior * (1 - prior) * len(p))).abs().max() < 4.5


def test_latents_are_standardised_under_equal_priors():
    problem = Images(samples=5000, dimension=8)
    mixture = problem.mixture(0)
    assert mixture.means.mean(0).abs().max() < 1e-12
    assert (mixture.means.square().mean(0) - 1).abs().max() < 1e-12
    u = problem.latents(0, "test", range(20_000))
    assert (u.mean(0) * len(u) ** 0.5 / u.std(0)).abs().max() < 4.5
    assert ((u.square().mean(0) - 1) * len(u) ** 0.5 / u.square().std(0)).abs().max() < 4.5
    within = u - math.sqrt(1 - mixture.spread**2) * mixture.means[problem._noise(0, "test", torch.arange(20_000))[0]]
    assert abs(within.square().mean() / mixture.spread**2 - 1) < 4.5 * math.sqrt(2 / u.numel())


def test_bcp_under_another_prior():
    mixture, u = LONG_TAIL.mixture(0), LONG_TAIL.latents(0, "train", range(500))
    tail, equal = mixture.bcp(u, LONG_TAIL.prior), mixture.bcp(u, LONG_TAIL.balanced_prior)
    assert (tail - equal).abs().max() > 0.3
    for one, other, priors in (
        (tail, equal, (LONG_TAIL.prior, LONG_TAIL.balanced_prior)),
        (equal, tail, (LONG_TAIL.balanced_prior, LONG_TAIL.prior)),
    ):
        assert (under_prior(one, *priors) - other).abs().max() < 1e-12
    vertex = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(under_prior(vertex, LONG_TAIL.prior, LONG_TAIL.balanced_prior), vertex)


# The renderer -----------------------------------------------------------------------------


def test_the_form_is_strictly_increasing_in_the_latent_and_within_its_ranges():
    u = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None].expand(-1, 8)
    values = form(u)
    for name, value in zip(Form._fields, values, strict=True):
        assert (value.diff() > 0).all(), name
    for angle in (values.orientation, values.stripe_direction):
        assert angle.abs().max() < math.radians(70)  # half a turn of 180 degrees is its period
    assert values.aspect.min() > 1.3 and values.stripe_frequency.min() > 0.7
    assert values.eye_size.min() > 0.2 and values.lobes.abs().max() < 0.25


def test_unused_coordinates_are_at_the_middle():
    u = SMALL.latents(0, "test", range(5))  # six of eight
    padded = torch.cat([u, torch.zeros(5, 2, dtype=torch.float64)], 1)
    v = SMALL.nuisance(0, "test", range(5))
    assert torch.equal(render(u, v), render(padded, v))


@pytest.mark.slow
def test_images_are_varied_and_use_the_grey_levels():
    x = SMALL.population(0).x.double()
    assert (x.flatten(1).std(1) > 10).all()  # no flat image
    assert (x.mean((0, 2, 3)) - 127.5).abs().max() < 5  # no colour and no polarity is preferred
    assert ((x == 0) | (x == 255)).double().mean() < 0.01  # hardly anything is clipped
    correlation = torch.corrcoef(x.flatten(1)[:200]) - torch.eye(200)
    assert correlation.abs().median() < 0.3  # neither of one image with another


@pytest.mark.slow
def test_distances_of_images_are_those_of_latents():
    """Injective given the nuisance: at any distance of two latents, their images differ in proportion."""
    count = 400
    problem = Images(samples=300, dimension=8)
    u, v = scenes(problem, count)
    direction = nn.functional.normalize(problem.latents(1, "test", range(count)), dim=1)
    images = render(u, v, dtype=torch.float64)

    def ratio(other):  # distance in grey levels over distance of latents
        gap = (render(other, v, dtype=torch.float64) - images).flatten(1).norm(dim=1)
        return 255 * gap / (other - u).norm(dim=1)

    for distance in (1e-6, 1e-3, 0.1):
        assert ratio(u + distance * direction).min() > 20, distance
    far = ratio(u.roll(1, 0))  # another scene's latent, some 3 to 6 away
    assert far.min() > 20
    # Each coordinate shows, wherever the others are: also in the rounded image.
    for coordinate in range(8):
        moved = u + 0.2 * nn.functional.one_hot(torch.tensor(coordinate), 8)
        changed = (quantised(render(moved, v)) != quantised(render(u, v))).flatten(1).sum(1)
        assert changed.min() >= 10, Form._fields[coordinate]


def test_images_are_smooth_in_latent_and_nuisance():
    """Derivatives of the renderer are those of differences, in all coordinates and all nuisance but the polarity."""
    u, v = scenes(SMALL, 8)
    step = 1e-6
    start = 3 + NUISANCE["phase"]
    free = torch.ones_like(v)
    free[:, start] = 0  # the sign of the polarity jumps
    forward, tangent = torch.func.jvp(lambda u, v: render(u, v, dtype=torch.float64), (u, v), (u.sign(), free))
    ahead = render(u + step * u.sign(), v + step * free, dtype=torch.float64)
    behind = render(u - step * u.sign(), v - step * free, dtype=torch.float64)
    assert ((ahead - behind) / (2 * step) - tangent).abs().max() < 1e-5 * tangent.abs().max()
    assert tangent.abs().amax((1, 2, 3)).min() > 0.5 and forward.min() >= 0 and forward.max() <= 1


def test_polarity_is_the_uniform_that_flips_figure_and_background():
    u, v = scenes(SMALL, 20)
    flipped = v.clone()
    flipped[:, 4] = 1 - v[:, 4]
    grey, other = (render(u, w, colour=0.0).mean(1).flatten(1) for w in (v, flipped))
    both = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(grey, other, strict=True)])
    assert both.mean() < -0.5


def test_nothing_is_drawn_over_the_figure():
    """Other clutter changes the image outside of the figure, never well inside of it."""
    u, v = scenes(Images(samples=300, clutter=12), 50)
    other = v.clone()
    other[:, -12 * 9 :] = v[:, -12 * 9 :].roll(1, 0)
    change = (render(u, v, shift=0.0) - render(u, other, shift=0.0)).abs().amax(1)  # (50, 32, 32)
    assert change[:, 15:17, 15:17].max() < 1e-3 and change.amax((1, 2)).min() > 0.1


def test_clutter_and_colour_do_what_they_say():
    u, v = scenes(SMALL, 30)
    grey = render(u, v, colour=0.0)
    assert (grey - grey[:, :1]).abs().max() < 1e-6
    assert (render(u, v) - render(u, v).mean(1, keepdim=True)).abs().mean() > 0.03
    assert v.shape[1] == nuisance_size(4) and not torch.equal(render(u, v), render(u, v[:, : nuisance_size(0)]))


def test_nuisance_is_uniform_and_tells_nothing_of_the_class():
    problem = Images(samples=4000, clutter=1, entropy=0.1)
    index = torch.arange(4000)
    v, component = problem.nuisance(0, "train", index), problem._noise(0, "train", index)[0]
    assert ((v.mean(0) - 0.5).abs() * math.sqrt(12 * 4000)).max() < 4.5
    u = problem.latents(0, "train", index)
    correlation = torch.corrcoef(torch.cat([v.T, u.T]))[: v.shape[1]]  # of nuisance with nuisance and with latents
    assert (correlation - torch.eye(*correlation.shape)).abs().max() * math.sqrt(4000) < 5
    by_class = torch.stack([v[component == k].mean(0) for k in range(10)])
    counts = torch.bincount(component)[:, None]
    assert ((by_class - 0.5).abs() * (12 * counts).sqrt()).max() < 5


@pytest.mark.parametrize("problem", CASES[:2], ids=["colour", "grey"])
def test_pools_hold_the_rendered_images_to_half_a_level(problem):
    images = render(*scenes(problem, 50), problem.shift, problem.colour)
    x = problem.pool(0, "test", range(50)).x
    assert (255 * images - x).abs().max() < 0.5 + 1e-4
    assert torch.equal(x[:, 0], x[:, 1]) == (problem.colour == 0)


def test_float32_pixels_agree_with_float64():
    u, v = scenes(SMALL, 100)
    exact = quantised(render(u, v, dtype=torch.float64)).int()
    difference = (quantised(render(u, v)).int() - exact).abs()
    assert difference.max() <= 1 and (difference > 0).double().mean() < 1e-3


# What an image tells of its latent ------------------------------------------------------------


def linearised_posterior(problem, count):
    """Standard deviation (count, m) of u and (count, K) of p(u) given a uint8 image, all nuisance unknown.

    The rounding is taken as independent noise of variance 1/12 of a level^2 and the renderer as linear at the truth:
    the precision of (u, v) is 12 J'J, J = d levels / d (u, v), plus that of the prior, 1 for u and 12 for a uniform.
    """
    u, v = scenes(problem, count)
    m = problem.dimension

    def levels(both):
        image = render(both[None, :m], both[None, m:], problem.shift, problem.colour, torch.float64)
        return 255 * image.flatten()

    jacobian = torch.func.vmap(torch.func.jacfwd(levels), chunk_size=4)(torch.cat([u, v], 1))  # (n, 3072, m + S)
    prior = torch.cat([torch.ones(m), torch.full((v.shape[1],), 12.0)]).double()
    covariance = torch.linalg.inv(12 * jacobian.mT @ jacobian + prior.diag())[:, :m, :m]
    mixture = problem.mixture(0)
    slope = torch.func.vmap(torch.func.jacfwd(lambda w: mixture.bcp(w[None], problem.balanced_prior)[0]))(u)
    variance = torch.einsum("nkm,nml,nkl->nk", slope, covariance, slope)
    return covariance.diagonal(dim1=1, dim2=2).sqrt(), variance.clamp_min(0).sqrt()


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem",
    [
        Images(samples=500),
        Images(samples=500, dimension=8, clutter=8),
        Images(samples=500, dimension=8, colour=0.0, shift=6.0, entropy=0.05),
    ],
    ids=["default", "eight", "grey"],
)
def test_a_rounded_image_tells_its_latent(problem):
    """The recoverability error of the module's docstring, in u (of unit variance) and in the BCP."""
    latent, bcp = linearised_posterior(problem, 16)
    assert latent.median() < 0.005 and latent.max() < 0.05
    assert bcp.amax(1).median() < 0.005 and bcp.max() < 0.05


def convolutional(outputs):
    def block(inputs, channels, size):
        return nn.Conv2d(inputs, channels, size, 2, size // 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()

    return nn.Sequential(*block(3, 16, 5), *block(16, 32, 3), *block(32, 64, 3), nn.Flatten(), nn.Linear(1024, outputs))


def scaled(x):
    return x.float() / 127.5 - 1


def fitted(model, x, p, u, rate, epochs=6, batch=64):
    """Softmax regression on p and least squares on u, of one model with K + m outputs."""
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * (len(x) // batch))
    shuffle, k = torch.Generator().manual_seed(0), p.shape[1]
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=shuffle).split(batch)[: len(x) // batch]:
            outputs = model(scaled(x[rows]))
            loss = nn.functional.cross_entropy(outputs[:, :k], p[rows]) + (outputs[:, k:] - u[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()


@pytest.mark.slow
def test_a_convolutional_network_is_needed():
    """After six epochs of 6,000 images a linear model is at chance, a small network at 0.7 of the Bayes accuracy.

    Accuracy is the mean of p at the predicted class, so that labels add no noise. The network also decodes u.
    """
    problem = Images(samples=6000, validation_samples=1, test_samples=1500)
    train, _, test = problem.split(0)
    u, test_u = (problem.latents(0, part, range(n)).float() for part, n in (("train", 6000), ("test", 1500)))
    bayes = test.p.amax(1).mean().item()

    def result(model, rate):
        fitted(model, train.x, train.p.float(), u, rate)
        with torch.no_grad():
            outputs = model(scaled(test.x))
        explained = 1 - (outputs[:, 10:] - test_u).square().mean(0) / test_u.var(0)
        return test.p.gather(1, outputs[:, :10].argmax(1, keepdim=True)).mean().item(), explained

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear, linear_explained = result(nn.Sequential(nn.Flatten(), nn.Linear(3072, 16)), 1e-3)
        network, explained = result(convolutional(16), 1e-2)
    assert bayes > 0.75
    assert linear < 0.2 and network > 0.6 * bayes and network > linear + 0.3
    assert linear_explained.max() < 0.1
    assert explained.mean() > 0.5 and explained.min() > 0.2
