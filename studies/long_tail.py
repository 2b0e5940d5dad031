"""long-tail: few training examples of most classes; what losses and teachers make of the tail, and which bias stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from kdsim.config import ConfigError, by_name, choose, require, require_between, require_count, require_positive
from kdsim.data import Cifar10, Cifar100, ImageSource, KnownImages, KnownPoints
from kdsim.engines import GradientDescent, StepDecay
from kdsim.losses import (
    DKD,
    KD,
    LTKD,
    BalancedSoftmax,
    CrossEntropy,
    DistillationLoss,
    LabelCrossEntropy,
    LogitAdjustment,
)
from kdsim.networks import POINT_NETWORKS
from kdsim.problems import Images, LongTail, Problem, SoftmaxLinear
from kdsim.studies.cifar_distillation import networks_of
from kdsim.study.base import Study
from kdsim.supervision import Dirichlet, Exact, OneHot, Supervision
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, PointNetwork, StudentTrainer, Teacher
from kdsim.training import CRD, Recipe

DATA = ("points", "known-images", "cifar10", "cifar100")
ON_LABELS = ("cross-entropy", "balanced-softmax", "logit-adjustment")
TAUGHT = ("kd", "dkd", "ltkd", "ltkd-rebalanced", "ltkd-equal-groups")
TEACHERS = ("exact", "noisy", "trained")

POINTS = SoftmaxLinear(classes=9, dimension=10, entropy=1.0, samples=3_000)
IMAGES = Images(
    classes=10,
    samples=2_000,
    validation_samples=600,
    test_samples=2_000,
    dimension=3,
    entropy=0.7,
    clutter=0,
    shift=2.0,
)
CONVEX = Recipe(
    epochs=40.0,
    batch_size=128,
    step_size=0.2,
    optimiser=GradientDescent(momentum=0.9),
    schedule=StepDecay((0.6, 0.85), 0.1),
)


@dataclass(frozen=True)
class LongTailStudy(Study):
    """Students on labels and of teachers, on data whose classes occur unequally often; scored on balanced data.

    On points and on drawn images the BCP is known under both priors. So is then the bias of what teaches: the exact
    long-tailed BCP is wrong by the change of the prior alone (`prior_bias`), the same BCP with Dirichlet noise varies
    besides, and a trained teacher has learned it from labels. Test predictions of the replicas are split into bias and
    variance. With a linear student on softmax-linear BCPs the problem is convex and every one of these BCPs can be
    learned exactly.

    Students of labels: cross-entropy, balanced softmax, logit adjustment with tau (at 1 it would be balanced softmax).
    Students of teachers: KD, DKD, LTKD with both corrections, with the first alone (-rebalanced: the groups' weights in
    the batch) and with the second alone (-equal-groups: equal weights within groups). With neither LTKD is KD. DKD is
    left out where a noisy teacher rules classes out: it has no distribution of the others where one class is sure. The
    weights alpha and beta of LTKD's paper are not known here: 1 and 1 are kdsim's.

    Each replica has labels of its own where the BCP is known (drawn once for each point or image), but for DKD's choice
    of the label's class and for labels on images; on images students and teachers share them.

    Attributes:
        data: points, known-images, cifar10, cifar100; the last two need --data-dir, and have no known BCP.
        imbalances: of the points: prior of the first over that of the last class.
        image_imbalances: of the images.
        losses: of ON_LABELS and TAUGHT, see above.
        teachers: of students on points: exact, noisy (Dirichlet), trained (deterministic, on labels).
        problem: the points under their own priors; its samples are those of the long-tailed training pool.
        validation_samples, test_samples: balanced points for validation and test.
        images: the drawn images.
        network: the student on points, and its trained teacher.
        pair: "TEACHER to STUDENT" on images.
        recipe: on points.
        image_recipe: on images, of teachers and students alike.
        concentration: of the noisy teacher's Dirichlet: c.
        temperature, label_weight: of KD, DKD and LTKD on points; the teacher's weight is 1 - label_weight. At
            temperature 1 and without labels the student's limit is what teaches, or for LTKD's first correction its
            prior shift between groups.
        image_temperature, image_label_weight: likewise on images.
        alpha, beta: weights of LTKD between and within groups.
        tau: of the logit adjustment.
        evaluations: number of evaluations on the validation images.
        replicas: on points; student r learns from trained teacher r.
        image_replicas: on images.
        seed: draws the data and keys all randomness.
        device: cpu, cuda or cuda:N.

    Source: S. Kim, "Distilling balanced knowledge from a biased teacher", CVPR 2026, arXiv 2506.18496.
    """

    name: ClassVar[str] = "long-tail"
    summary: ClassVar[str] = "long-tailed classes: losses and teachers by head, medium and tail, bias and variance"
    figure: ClassVar[str] = "long-tail"

    data: tuple[str, ...] = ("points", "known-images")
    imbalances: tuple[float, ...] = (10.0, 50.0, 100.0)
    image_imbalances: tuple[float, ...] = (50.0,)
    losses: tuple[str, ...] = (*ON_LABELS, *TAUGHT)
    teachers: tuple[str, ...] = TEACHERS
    problem: Problem = POINTS
    validation_samples: int = 1_000
    test_samples: int = 2_000
    images: Images = IMAGES
    network: Literal["linear", "mlp"] = "linear"
    pair: str = "resnet20 to resnet8"
    recipe: Recipe = CONVEX
    image_recipe: Recipe = field(default_factory=lambda: CRD(epochs=10.0))
    concentration: float = 20.0
    temperature: float = 1.0
    label_weight: float = 0.0
    image_temperature: float = 4.0
    image_label_weight: float = 0.1
    alpha: float = 1.0
    beta: float = 1.0
    tau: float = 1.5
    evaluations: int = 24
    replicas: int = 16
    image_replicas: int = 3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for what, allowed in (("data", DATA), ("losses", (*ON_LABELS, *TAUGHT)), ("teachers", TEACHERS)):
            for value in getattr(self, what):
                choose(what, value, dict.fromkeys(allowed))
            if not getattr(self, what):
                raise ConfigError(f"{what} must not be empty")
        for what in ("imbalances", "image_imbalances"):
            for value in getattr(self, what):
                require_between(what, value, 1, 1e6, "(]")
        for what in ("concentration", "temperature", "image_temperature"):
            require_positive(what, getattr(self, what))
        for what in ("label_weight", "image_label_weight"):
            require_between(what, getattr(self, what), 0, 1, "[)")
        for what in ("validation_samples", "test_samples", "evaluations"):
            require_count(what, getattr(self, what))
        for what in ("replicas", "image_replicas"):
            require_count(what, getattr(self, what), least=2)
        choose("network of points", self.network, POINT_NETWORKS)
        require(self.images.imbalance == 1, "images.imbalance", self.images.imbalance, "1: image_imbalances sets it")
        networks_of(self.pair)
        LongTail(self.problem)
        self._losses(self.temperature, self.label_weight)

    def quick(self) -> Self:
        return replace(
            self, imbalances=self.imbalances[:1], losses=("cross-entropy", "kd", "ltkd"),
            problem=replace(self.problem, samples=300),
            validation_samples=100, test_samples=200, pair="resnet8 to resnet8", replicas=3, image_replicas=2,
            images=replace(self.images, samples=256, validation_samples=100, test_samples=100),
            recipe=replace(self.recipe, epochs=5.0), image_recipe=replace(self.image_recipe, epochs=2.0),
        )  # fmt: skip

    def cells(self) -> tuple[StudentTrainer, ...]:
        cells = [cell for data in self.data for cell in (self._points() if data == "points" else self._images(data))]
        return tuple(dict.fromkeys(cells))  # the training of a teacher may be a student's, too

    def _points(self) -> Iterator[StudentTrainer]:
        """Students of labels, then of each teacher, for each imbalance."""
        losses = self._losses(self.temperature, self.label_weight)
        for imbalance in self.imbalances:
            data = KnownPoints(LongTail(self.problem, imbalance), self.validation_samples, self.test_samples)
            base = StudentTrainer(
                PointNetwork(self.network), data, OneHot(), CrossEntropy(), self.recipe,
                evaluations=self.evaluations, replicas=self.replicas, seed=self.seed, device=self.device,
            )  # fmt: skip
            # Labels of each replica's own: targets, not the pool's y.
            yield from self._on_labels(base, CrossEntropy(), label_weight=0.0, teacher_weight=1.0)
            teachers: dict[str, Supervision | Teacher] = {
                "exact": Exact(),
                "noisy": Dirichlet(self.concentration),
                "trained": Deterministic(base),
            }
            for name in self.teachers:
                if name == "trained" and losses:
                    yield base
                for loss in losses:
                    if not (name == "noisy" and isinstance(loss, DKD)):
                        yield replace(base, supervision=teachers[name], loss=loss)

    def _images(self, name: str) -> Iterator[StudentTrainer]:
        """The trained teacher's training, students of labels, then students of the teacher, for each imbalance."""
        first, second = networks_of(self.pair)
        for imbalance in self.image_imbalances:
            teacher = StudentTrainer(
                ImageNetwork(first), self._image_source(name, imbalance), OneHot(), LabelCrossEntropy(),
                self.image_recipe, evaluations=self.evaluations, replicas=self.image_replicas, seed=self.seed,
                device=self.device,
            )  # fmt: skip
            yield teacher
            student = replace(teacher, student=ImageNetwork(second))
            yield from self._on_labels(student, LabelCrossEntropy())
            for loss in self._losses(self.image_temperature, self.image_label_weight):
                yield replace(student, supervision=Deterministic(teacher), loss=loss)

    def _image_source(self, name: str, imbalance: float) -> ImageSource:
        if name == "known-images":
            return KnownImages(replace(self.images, imbalance=imbalance))
        return by_name((Cifar10, Cifar100))[name](imbalance=imbalance)

    def _on_labels(self, base: StudentTrainer, plain: DistillationLoss, **weights: Any) -> Iterator[StudentTrainer]:
        """Students of labels, those that are asked for."""
        losses = {
            "cross-entropy": plain,
            "balanced-softmax": BalancedSoftmax(**weights),
            "logit-adjustment": LogitAdjustment(**weights, tau=self.tau),
        }
        for name, loss in losses.items():
            if name in self.losses:
                yield replace(base, loss=loss)

    def _losses(self, temperature: float, label_weight: float) -> list[DistillationLoss]:
        """Losses of students of teachers, those that are asked for."""
        parts: dict[str, Any] = {
            "label_weight": label_weight,
            "teacher_weight": 1 - label_weight,
            "temperature": temperature,
        }
        tail = LTKD(**parts, alpha=self.alpha, beta=self.beta)
        found = {
            "kd": KD(**parts),
            "dkd": DKD(**parts),
            "ltkd": tail,
            "ltkd-rebalanced": replace(tail, equal_groups=False),
            "ltkd-equal-groups": replace(tail, rebalance=False),
        }
        return [loss for name, loss in found.items() if name in self.losses]
