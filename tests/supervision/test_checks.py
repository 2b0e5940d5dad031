"""Noise models that are wrong: their declarations, moments and targets are refused in one line that names them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from kdsim import config
from kdsim.config import ConfigError
from kdsim.data import KnownPoints
from kdsim.engines import ENGINES, SGD, Lane, Recording, choose_engine
from kdsim.engines.samples import Samples
from kdsim.population import Population
from kdsim.problems import SoftmaxLinear
from kdsim.rng import Draws
from kdsim.students import SoftmaxRegression, minimiser
from kdsim.study import packs
from kdsim.study.base import Cell
from kdsim.supervision import Annotators, Batch, Dirichlet, Independent, OneHot, Supervision, Target, TwoPoint, checks
from kdsim.supervision.checks import require_moments, require_nu, require_sound
from kdsim.theory.prediction import predict
from kdsim.trainer import StudentTrainer
from kdsim.training.recipe import Recipe
from kdsim.training.students import PointNetwork

STUDENT = SoftmaxRegression(0.1, "centred")
POINTS = SoftmaxLinear(dimension=3, samples=40, classes=3)
POOL = POINTS.population(0)


@dataclass(frozen=True, eq=False)  # each is looked at anew
class Bad(Supervision):
    """One-hot moments and exact targets, unless told otherwise.

    Attributes:
        change: q (R, V, K) and the batch -> what `sample` gives, a target or its q.
        moment, altered: name of a moment, and what becomes of it.
    """

    change: Callable[[Tensor, Batch], Any] = lambda q, batch: q
    moment: str = ""
    altered: Callable[[Tensor], Any] = lambda found: found

    name: ClassVar[str] = "bad"
    unbiased: ClassVar[bool] = True

    def sample(self, batch: Batch, draws: Draws) -> Target:
        found = self.change(batch.p, batch)
        return found.target if isinstance(found, SimpleNamespace) else Target(q=found)

    def mean(self, p: Tensor) -> Tensor:
        return self.altered(p) if self.moment == "mean" else p

    def covariance(self, p: Tensor) -> Tensor:
        found = OneHot().covariance(p)
        return self.altered(found) if self.moment == "covariance" else found


@dataclass(frozen=True)
class Instead:
    """A target, or what takes its place."""

    make: Callable[[Batch], Any]

    def __call__(self, q: Tensor, batch: Batch) -> SimpleNamespace:
        return SimpleNamespace(target=self.make(batch))


def samples(*supervisions: Supervision, sgd: SGD | None = None) -> Samples:
    """Of two replicas a supervision, numbered from 3."""
    lanes = [Lane(supervision, 0.02, 0, 2, first_replica=3) for supervision in supervisions]
    return Samples(POOL, lanes, sgd or SGD(50, 2), torch.float32, torch.device("cpu"))


@pytest.fixture(autouse=True)
def functions_as_fields(monkeypatch):
    """`Bad` has functions for fields, which no stored configuration may."""
    encode = packs.config.encode
    encode = config.encode
    for module in (config, config.encoding):
        monkeypatch.setattr(module, "encode", lambda value: {} if isinstance(value, Bad) else encode(value))


# Targets ------------------------------------------------------------------------------------------

FORMS = {  # what `sample` gives instead of q (2, 100, 3) float32, and what is said of it
    "one": (lambda q, b: q[..., :1], "target is (2, 100, 1) float32"),
    "pool": (lambda q, b: q[:1, :1], "target is (1, 1, 3) float32"),
    "one-replica": (lambda q, b: q[:1], "target is (1, 100, 3) float32"),
    "vector": (lambda q, b: q[0, 0], "target is (3,) float32"),
    "scalar": (lambda q, b: torch.tensor(0.2), "target is () float32"),
    "number": (lambda q, b: 0.2, "target is a float"),
    "labels": (lambda q, b: q.argmax(-1), "target is (2, 100) int64"),
    "integers": (lambda q, b: q.round().long(), "target is (2, 100, 3) int64"),
    "bool": (lambda q, b: q > 0.5, "target is (2, 100, 3) bool"),
    "complex": (lambda q, b: q + 0j, "target is (2, 100, 3) complex64"),
    "double": (lambda q, b: q.double(), "target is (2, 100, 3) float64"),
    "half": (lambda q, b: q.half(), "target is (2, 100, 3) float16"),
    "other-device": (lambda q, b: q.to("meta"), "target is (2, 100, 3) float32 on meta"),
    "sparse": (lambda q, b: q.to_sparse(), "target is (2, 100, 3) float32 sparse_coo"),
    "array": (lambda q, b: q.numpy(), "target is a ndarray"),
    "nothing": (lambda q, b: None, "target is a NoneType"),
    "transposed": (lambda q, b: q.mT, "target is (2, 3, 100) float32"),
    "samples": (lambda q, b: q[None], "target is (1, 2, 100, 3) float32"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_targets_of_another_form_are_refused(kind):
    change, said = FORMS[kind]
    with pytest.raises(ConfigError, match=re.escape(f"supervision bad: {said}: must be (2, 100, 3) float32")):
        samples(Bad(change)).chunk(0, 50)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Instead(lambda b: b.p), "sample gives a Tensor: must be a Target"),
        (Instead(lambda b: (b.p, b.y)), "sample gives a tuple: must be a Target"),
        (Instead(lambda b: None), "sample gives a NoneType: must be a Target"),
        (Instead(lambda b: Target(b.p, y=b.y[:1])), "y of the target is (1, 100) int64: must be (2, 100) int64"),
        (Instead(lambda b: Target(b.p, y=b.p)), "y of the target is (2, 100, 3) float32: must be (2, 100) int64"),
        (
            Instead(lambda b: Target(b.p, b.p.log())),
            "log_probs of the target is (2, 100, 3) float32: must be (2, 2, 100, 3) float32",
        ),
    ],
)
def test_what_is_no_target_is_refused(change, said):
    with pytest.raises(ConfigError, match=re.escape(f"supervision bad: {said}")):
        samples(Bad(change)).chunk(0, 50)


def at(value: float, *where: tuple[int, int, int]) -> Callable[[Tensor, Batch], Tensor]:
    """q with a value at some (replica, visit, class) of each chunk."""

    def change(q: Tensor, batch: Batch) -> Tensor:
        q = q.clone()
        for place in where:
            q[place] = value
        return q

    return change


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_visit_that_is_not_finite_is_named(value):
    """In time, then by replica: visit 7 is the second of step 4, replica 4 the second of two from 3 on."""
    found = samples(Bad(at(value, (0, 9, 0), (1, 7, 2), (1, 8, 0))))
    point = int(found.visits(0, 50, targets=False)[0][1, 7])
    said = f"target not finite, first at step 4 (visit 7), replica 4, pool point {point}: class 2 has {value}"
    with pytest.raises(ConfigError, match=re.escape(f"supervision bad: {said}")):
        found.chunk(0, 50)
    with pytest.raises(ConfigError, match=r"first at step 24 \(visit 47\), replica 4"):
        found.chunk(20, 50)


def test_frozen_targets_are_named_by_their_point():
    found = samples(Bad(at(math.nan, (1, 5, 0))), sgd=SGD(50, 2, targets="frozen", training_set=10))
    point = int(found.members(torch.arange(10).expand(2, -1))[1, 5])
    with pytest.raises(ConfigError, match=f"not finite, first at replica 4, pool point {point}: class 0 has nan"):
        found.training_sets()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda q, b: 2 * q, "target outside [0, 1], though on_simplex is stated"),
        (lambda q, b: -q, "target outside [0, 1], though on_simplex is stated"),
        (lambda q, b: q / 2, "target does not sum to one, though sums_to_one is stated"),
        (lambda q, b: torch.zeros_like(q), "target does not sum to one, though sums_to_one is stated"),
    ],
)
def test_targets_are_where_the_class_states(change, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        samples(Bad(change)).chunk(0, 50)

    class Free(Bad):
        on_simplex: ClassVar[bool] = False
        sums_to_one: ClassVar[bool] = False

    assert samples(Free(change)).chunk(0, 50)[1].shape == (2, 100, 3)


def test_targets_carry_no_gradients():
    weight = torch.ones(3, requires_grad=True)
    assert not samples(Bad(lambda q, b: q * weight)).chunk(0, 50)[1].requires_grad


@pytest.mark.parametrize("engine", ["torch", "autograd"])
def test_engines_refuse_bad_targets(engine):
    reference, lanes = minimiser(STUDENT, POOL), [Lane(Bad(FORMS["one"][0]), 0.02, 0, 2)]
    with pytest.raises(ConfigError, match=r"supervision bad: target is \(2, 50, 1\) float32"):
        ENGINES[engine].run(
            STUDENT, POOL, lanes, SGD(50), Recording(), reference=reference, anchor=STUDENT.anchor(POOL)
        )


@pytest.mark.parametrize("dropout", [0.0, 0.5])  # rows of one program, and replica by replica
def test_trainings_of_networks_refuse_bad_targets(dropout):
    def train(supervision: Supervision) -> None:
        recipe = Recipe(epochs=1.0, batch_size=4)
        data = KnownPoints(POINTS, 8, 8)
        StudentTrainer(PointNetwork(dropout=dropout), data, supervision, recipe=recipe, replicas=1).run()

    with pytest.raises(ConfigError, match=r"supervision bad: target is .* float32: must be"):
        train(Bad(lambda q, b: q[..., :1]))
    with pytest.raises(ConfigError, match="supervision bad: target not finite, first at replica 0, pool point"):
        train(Bad(lambda q, b: q * math.nan))
    with pytest.raises(ConfigError, match="supervision bad: at point 3 of the pool covariance"):
        train(Bad(moment="covariance", altered=from_the_fourth(math.nan)))


# A subclass of a known family ------------------------------------------------------------------------


@dataclass(frozen=True)
class Halved(Dirichlet):
    """A user's own: half of the noise, under its parent's name."""

    def sample(self, batch: Batch, draws: Draws) -> Target:
        return Target(q=(batch.p + super().sample(batch, draws).q) / 2)

    def covariance(self, p: Tensor) -> Tensor:
        return super().covariance(p) / 4


def test_fused_engines_leave_a_subclass_alone():
    lanes = [Lane(Halved(3.0), 0.02, 0, 2)]
    assert choose_engine("auto", STUDENT, POOL, lanes, SGD(50), Recording(), "cpu").engine == "torch"
    for engine in ("cpu_fused", "gpu_fused"):
        assert ENGINES[engine].refusal(STUDENT, POOL, lanes, SGD(50), Recording(), "cpu") is not None


def test_two_classes_of_one_name_draw_their_own_targets():
    class Other(Bad):
        def sample(self, batch: Batch, draws: Draws) -> Target:
            return Target(q=torch.full_like(batch.p, 1 / 3))

    _, q = samples(Bad(), Other()).chunk(0, 50)
    assert torch.equal(q[2:], torch.full((2, 100, 3), 1 / 3)) and not torch.equal(q[:2], q[2:])


@pytest.mark.parametrize("family", [Annotators, Dirichlet, Independent, TwoPoint])
def test_with_nu_stays_in_the_users_family(family):
    @dataclass(frozen=True)
    class Own(family):
        weight: float = 1.0

    found = Own(weight=2.0).with_nu(0.01, POOL.p)
    assert type(found) is Own and found.weight == 2.0
    assert found.nu(POOL.p) == pytest.approx(0.01, rel=1e-9)


# Moments ------------------------------------------------------------------------------------------


def from_the_fourth(value: float, entry: tuple[int, ...] | None = None) -> Callable[[Tensor], Tensor]:
    """A moment with the value in an entry, or in all, of every point from number 3 on."""

    def altered(found: Tensor) -> Tensor:
        found = found.clone()
        found[(slice(3, None), *(entry or ()))] = value
        return found

    return altered


MOMENTS = {
    "nan-covariance": ("covariance", from_the_fourth(math.nan, (1, 2)), "is not finite: entry (1, 2) is nan"),
    "infinite-covariance": ("covariance", from_the_fourth(math.inf, (0, 0)), "is not finite: entry (0, 0) is inf"),
    "lopsided-covariance": ("covariance", from_the_fourth(0.5, (0, 1)), "is not symmetric: entry (0, 1) is 0.5"),
    "negative-covariance": (
        "covariance", lambda c: torch.cat([c[:3], -c[3:]]), "is not positive semi-definite: the smallest eigenva"
    ),
    "negative-and-tiny": (
        "covariance", lambda c: torch.cat([c[:3], -1e-9 * c[3:]]), "is not positive semi-definite: the smallest eigenva"
    ),
    "indefinite-covariance": (  # every variance positive
        "covariance", lambda c: torch.cat([c[:3], c[3:] + 0.4 * torch.tensor([[0.0, 1, -1], [1, 0, -1], [-1, -1, 2]])]),
        "is not positive semi-definite: the smallest eigenvalue is -",
    ),
    "rows-of-covariance": (
        "covariance", lambda c: c + 0.1 * (torch.arange(len(c)) >= 3)[:, None, None] * torch.eye(3),
        "has a row with a sum other than zero, though sums_to_one is stated: it is 0.1",
    ),
    "nan-mean": ("mean", from_the_fourth(math.nan, (2,)), "is not finite: class 2 has nan for p ="),
    "mean-above-one": ("mean", from_the_fourth(0.9), "does not sum to one, though sums_to_one is stated: the sum is 2"),
    "mean-off-simplex": (
        "mean", lambda m: torch.cat([m[:3], torch.tensor([[1.5, -0.5, 0.0]], dtype=m.dtype).repeat(len(m) - 3, 1)]),
        "leaves the simplex, though on_simplex is stated: class 1 has -0.5 for p =",
    ),
    "biased-mean": (
        "mean", lambda m: torch.cat([m[:3], m[3:].roll(1, -1)]), "is not p, though unbiased is stated: class"
    ),
}  # fmt: skip
"""Moments that are wrong from the fourth point of the pool on, and what is said."""


@pytest.mark.parametrize("kind", MOMENTS)
@pytest.mark.parametrize("ask", ["packing", "theory"])
def test_wrong_moments_are_refused_with_the_first_point(kind, ask):
    moment, altered, said = MOMENTS[kind]
    supervision = Bad(moment=moment, altered=altered)
    with pytest.raises(ConfigError, match=re.escape(f"supervision bad: at point 3 of the pool {moment}(p) {said}")):
        if ask == "theory":
            predict(STUDENT, POOL, supervision, 1e-3, 1, [10])
        else:
            packs.choice_of(Cell(POINTS, STUDENT, supervision, 1e-3, engine="torch"))


@pytest.mark.parametrize(
    ("moment", "altered", "said"),
    [
        ("covariance", lambda c: c[:2], "is (2, 3, 3) float64: must be (40, 3, 3) float64"),
        ("covariance", lambda c: c[0], "is (3, 3) float64: must be (40, 3, 3) float64"),
        ("covariance", lambda c: c.diagonal(dim1=1, dim2=2), "is (40, 3) float64: must be (40, 3, 3) float64"),
        ("covariance", lambda c: torch.zeros(1).expand(10**12, 4), "is (1000000000000, 4) float32: must be"),
        ("covariance", lambda c: c.float(), "is (40, 3, 3) float32: must be (40, 3, 3) float64"),
        ("covariance", lambda c: c.numpy(), "is a ndarray: must be (40, 3, 3) float64"),
        ("covariance", lambda c: None, "is a NoneType: must be (40, 3, 3) float64"),
        ("mean", lambda m: m[:, :1], "is (40, 1) float64: must be (40, 3) float64"),
        ("mean", lambda m: m[0], "is (3,) float64: must be (40, 3) float64"),
        ("mean", lambda m: m.argmax(-1), "is (40,) int64: must be (40, 3) float64"),
        ("mean", lambda m: 0.2, "is a float: must be (40, 3) float64"),
    ],
)
def test_moments_of_another_form_are_refused(moment, altered, said):
    what = f"supervision bad: {moment}(p), for p of shape (40, 3), {said}"
    with pytest.raises(ConfigError, match=re.escape(what)):
        require_moments(Bad(moment=moment, altered=altered), POOL.p)


def test_what_is_called_noiseless_has_no_covariance():
    class Sure(Bad):
        noiseless = True

    with pytest.raises(ConfigError, match=r"covariance\(p\) is not zero, though noiseless is stated: entry"):
        require_moments(Sure(), POOL.p)


def test_rounding_is_no_fault():
    """Second moments less squares, entry by entry in another order, and a millionth of the largest entry."""

    def differences(c: Tensor) -> Tensor:
        p = POOL.p
        return (torch.diag_embed(p) + p[:, :, None] - p[:, None, :] * (p[:, :, None])) - p[:, :, None]

    for altered in (differences, lambda c: c + 1e-7 * c.amax((-2, -1), keepdim=True) * torch.triu(torch.ones(3, 3), 1)):
        require_moments(Bad(moment="covariance", altered=altered), POOL.p)


@pytest.mark.parametrize("moment", ["mean", "covariance"])
def test_points_are_looked_at_in_chunks(monkeypatch, moment):
    """Never more than so many entries at a time, and all: the last point of seven is named by its number."""
    sizes = []

    def altered(found: Tensor) -> Tensor:
        sizes.append(len(found))
        return torch.where(found == POOL.p[6].max(), math.nan, found) if moment == "mean" else found

    monkeypatch.setattr(checks, "CHUNK_NUMBERS", 2 * 9)
    supervision = Bad(moment=moment, altered=altered)
    if moment == "mean":
        with pytest.raises(ConfigError, match="at point 6 of the pool"):
            require_moments(supervision, POOL.p[:7])
    else:
        require_moments(supervision, POOL.p[:7])
    assert sizes == [2, 2, 2, 1]


def test_a_pool_is_looked_at_once():
    calls = []

    @dataclass(frozen=True)
    class Counted(OneHot):
        def mean(self, p: Tensor) -> Tensor:
            calls.append(len(p))
            return p

    for population in (POOL, POOL, Population(POOL.x, POOL.p)):
        require_sound(Counted(), population)
    assert calls == [40, 40]


@pytest.mark.parametrize("nu", [None, -0.1, math.nan, math.inf, "0.1", True])
def test_a_nu_that_is_none(nu):
    class Odd(Bad):
        def nu(self, p: Tensor) -> Any:
            return nu

    with pytest.raises(ConfigError, match=re.escape(f"nu(p) = {nu!r} is not allowed: must be a finite number >= 0")):
        require_nu(Odd(), POOL)


# Declarations -------------------------------------------------------------------------------------


def declared(fields: dict[str, Any], **body: Any) -> type[Supervision]:
    """A class that is read with these annotations and this body."""
    names = ("sample", "mean", "covariance")
    rest = {"name": "own", "unbiased": True, **{name: getattr(Bad, name) for name in names}}
    return dataclasses.dataclass(frozen=True)(type("Own", (Supervision,), rest | body | {"__annotations__": fields}))


@pytest.mark.parametrize(
    ("fields", "body", "said"),
    [
        ({"kind": "str"}, {"level_field": "kind", "kind": "high"}, "= 'kind' is not allowed: that field is a str"),
        ({"kind": str}, {"level_field": "kind"}, "= 'kind' is not allowed: that field is a str, must be a number"),
        ({"rate": tuple[float, ...]}, {"level_field": "rate"}, "= 'rate' is not allowed: that field is a tuple"),
        ({"kind": "float"}, {"level_field": "kind", "kind": "high"}, "kind of supervision own = 'high'"),
        ({"rate": "float | None"}, {"level_field": "rate", "rate": None}, "rate of supervision own = None"),
        ({"rate": Any}, {"level_field": "rate", "rate": (1.0,)}, "rate of supervision own = (1.0,)"),
        ({"rate": float}, {"level_field": "rate", "rate": math.nan}, "rate of supervision own = nan"),
        ({"scale": float}, {"level_field": "rate"}, "= 'rate' is not allowed: must be a field (scale) or None"),
        ({}, {"level_field": "rate"}, "= 'rate' is not allowed: must be a field (there are none) or None"),
        ({}, {"level_field": "name"}, "= 'name' is not allowed: must be a field"),
        ({"rate": float}, {"level_field": 3}, "level_field of supervision own = 3"),
        ({"rate": float}, {"level_field": ("rate",)}, "level_field of supervision own = ('rate',)"),
        ({}, {"unbiased": "no"}, "unbiased of supervision own = 'no' is not allowed: must be True or False"),
        ({}, {"on_simplex": None}, "on_simplex of supervision own = None"),
    ],
)
def test_a_class_is_refused_when_it_is_read(fields, body, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        declared(fields, **body)


@pytest.mark.parametrize("level", ["high", None, (0.5,), math.nan, True, torch.ones(2)])
def test_levels_that_are_no_numbers(level):
    """Of a field whose annotation and default say nothing: when a member is used, by theory and by engines."""
    own = declared({"rate": Any}, level_field="rate")(level)
    said = re.escape(f"rate of supervision own = {level!r} is not allowed: must be a number")
    with pytest.raises(ConfigError, match=said):
        packs.choice_of(Cell(POINTS, STUDENT, own, 1e-3, engine="torch"))
    with pytest.raises(ConfigError, match=said):
        samples(own)


def test_levels_that_are_numbers():
    for level in (1, 0.5, np.float64(0.5), np.float32(0.5), np.int64(2), math.inf):
        checks.require_declared(declared({"rate": float}, level_field="rate")(level))


def test_an_abstract_class_may_leave_its_field_to_subclasses():
    class Base(Supervision):
        level_field: ClassVar[str] = "rate"

    with pytest.raises(ConfigError, match="level_field of supervision"):
        type(
            "Own", (Base,), {name: getattr(Bad, name) for name in ("sample", "mean", "covariance")} | {"unbiased": True}
        )


def test_noiseless_is_a_property():
    """A method is true whatever it returns, and its bound would be zero."""

    class Sure(Bad):
        def noiseless(self) -> bool:
            return False

    with pytest.raises(ConfigError, match=r"noiseless of supervision bad = .* must be True or False"):
        require_sound(Sure(), POOL)
