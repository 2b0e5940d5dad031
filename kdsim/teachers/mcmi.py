"""A trained network that is trained further, to say more about an image than its class does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import require_between, require_positive
from kdsim.data.sources import Pools
from kdsim.engines.optimisers import GradientDescent, Optimiser
from kdsim.teachers.continued import continued, require_continuable, require_converged
from kdsim.teachers.weight_samples import said_by
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.evaluation import log_probs_of
from kdsim.training.fitted import FittedTeacher
from kdsim.training.trained import TrainedNetwork
from kdsim.training.walk import Walk

WEIGHTS = "weights "
"""What stands before the names of the weights among the tensors of a fitted teacher."""


def log_class_means(log_probs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """log Q, Q^y the mean of p_i over the images of class y. (N, K), (N,) -> (K, K) float64, a row a class.

    Summed as logarithms: no entry underflows to zero, where the divergence would be infinite. A class without images
    gets the uniform row, which no image looks at.
    """
    means = log_probs.new_full((classes, log_probs.shape[1]), -math.log(log_probs.shape[1]), dtype=torch.float64)
    for y, count in enumerate(torch.bincount(labels, minlength=classes).tolist()):
        if count:
            means[y] = log_probs[labels == y].double().logsumexp(0) - math.log(count)
    return means


def information(log_probs: Tensor, labels: Tensor, log_means: Tensor) -> Tensor:
    """Mean of KL(p_i, Q^{y_i}) in nats, the empirical I(X; prediction | Y) if Q are the class means. (N, K) -> ()."""
    return (log_probs.exp() * (log_probs - log_means[labels])).sum(-1).mean()


class InformationLoss:
    """The training's loss less weight * `information`, which is to grow: the sign is minus. Q is a constant in it.

    Attributes:
        log_means: log Q (K, K); uniform until it is set.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor, Tensor, float], Tensor], weight: float, classes: int) -> None:
        self.loss, self.weight = loss, weight
        self.log_means = torch.full((classes, classes), -math.log(classes))

    def __call__(self, outputs: Tensor, said: Tensor, labels: Tensor, epoch: float) -> Tensor:
        found = information(torch.log_softmax(outputs, -1), labels, self.log_means.to(outputs))
        return self.loss(outputs, said, labels, epoch) - self.weight * found


@dataclass(frozen=True)
class MCMI(Teacher):
    """Maximum conditional mutual information: fine-tuning under CE - weight * mean KL(p_i, Q^{y_i}).

    Q^y, the mean prediction on the training images of class y, is computed anew before each epoch, in evaluation mode
    and without crops and flips. y are the labels of the images; CE is the training's own loss. A published code of
    this teacher has + for -, and computes Q once.

    Cost: `epochs` more epochs, and a forward pass over the training images for each. The fit has no checkpoints: one
    that is interrupted starts over. It is a function of the training's seed and the number of the teacher.

    Attributes:
        training: what trains the network first, without a teacher of its own.
        weight: lambda >= 0 of the information; 0 is plain fine-tuning.
        epochs: of fine-tuning, > 0.
        step_size: constant, > 0. The paper's is not known here; the default is one of the last of the "crd" recipe.
        optimiser: of the fine-tuning; it starts without momentum.

    Source: L. Ye et al., "Bayes conditional distribution estimation for knowledge distillation based on conditional
    mutual information", ICLR 2024, arXiv:2401.08732; lambda about 0.2, 20 epochs, SGD.
    """

    training: StudentTrainer = field(default_factory=StudentTrainer)
    weight: float = 0.2
    epochs: float = 20.0
    step_size: float = 5e-4
    optimiser: Optimiser = field(default_factory=lambda: GradientDescent(momentum=0.9, weight_decay=5e-4))

    name: ClassVar[str] = "mcmi"

    def __post_init__(self) -> None:
        require_continuable(self.training, self.optimiser)
        require_between("weight", self.weight, 0, math.inf, "[)")
        require_positive("epochs", self.epochs)
        require_positive("step_size", self.step_size)

    def fit(self, networks: Sequence[TrainedNetwork], pools: Pools, number: int) -> dict[str, Tensor]:
        """The weights by name, and `information` of the training images, nats: before each epoch and at the end."""
        (network,) = networks
        loss = InformationLoss(self.training.loss, self.weight, pools.train.classes)
        walk = continued(self.training, network, pools, self.epochs, self.step_size, self.optimiser, loss)
        first, epoch = walk.step, max(1, round(pools.train.size / self.training.recipe.batch_size))
        seen = []
        while not walk.finished:
            if (walk.step - first) % epoch == 0:
                loss.log_means, found = _seen(walk)
                seen.append(found)
            walk.advance()
        require_converged(walk, self.name)
        weights = {WEIGHTS + name: tensor for name, tensor in walk.flat.state_dict().items()}
        return weights | {"information": torch.tensor([*seen, _seen(walk)[1]], dtype=torch.float64)}

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        weights = {name: fitted.tensors[WEIGHTS + name] for name in network.weights}
        return said_by([replace(network, weights=weights).module(device)], network.normalisation, mixed)


def _seen(walk: Walk) -> tuple[Tensor, float]:
    """log Q and the information of the present weights on the training images."""
    task = walk.task
    log_probs = log_probs_of(walk.module, task.train.x, task.normalise, task.mixed)
    log_means = log_class_means(log_probs, task.train.y, task.train.classes)
    return log_means, information(log_probs.double(), task.train.y, log_means).item()
