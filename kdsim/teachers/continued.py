"""Trained networks that are trained a little further, for teachers that are found so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from kdsim.config import ConfigError, require
from kdsim.data.sources import Pools
from kdsim.engines.base import check_device
from kdsim.engines.optimisers import Optimiser, WeightSampler
from kdsim.engines.schedules import Constant
from kdsim.teachers.checks import require_network
from kdsim.trainer import StudentTrainer
from kdsim.training.trained import TrainedNetwork
from kdsim.training.walk import Walk


def require_continuable(training: StudentTrainer, optimiser: Optimiser) -> None:
    """Refuse a training that cannot be continued, and an optimiser that it cannot be continued with."""
    require_network(training)
    taught = training.teacher
    require(taught is None, "training.supervision", getattr(taught, "name", None), "no teacher, to be continued")
    plain = isinstance(optimiser, Optimiser) and not isinstance(optimiser, WeightSampler)
    require(plain, "optimiser", optimiser, "an Optimiser that draws no weights")


def continued(
    training: StudentTrainer,
    network: TrainedNetwork,
    pools: Pools,
    epochs: float,
    step_size: float,
    optimiser: Optimiser,
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor] | None = None,
) -> Walk:
    """A walk at the end of the training, with so many epochs before it at a constant step size.

    Order of the images, crops and fresh targets are those that would have followed; frozen targets stay the same. So
    the walk is a function of the training's seed and the network's replica. The optimiser starts without momentum.

    Args:
        loss: instead of the training's, see `Task`.
    """
    check_device(training.device)
    task = training.task(pools)
    own = training.recipe
    recipe = replace(own, epochs=own.epochs + epochs, step_size=step_size, optimiser=optimiser, schedule=Constant())
    end = max(task.steps + 1, recipe.steps(pools.train.size))
    task_on = replace(task, recipe=recipe, steps=end, evaluations=1, loss=loss or task.loss)
    walk = Walk(task_on, network.replica)
    walk.go_on_from(network, task.steps)
    return walk


def require_converged(walk: Walk, kind: str) -> None:
    """Refuse a continued training that diverged."""
    if walk.diverged_at >= 0:
        raise ConfigError(
            f"{kind}: replica {walk.replica} diverged when it was trained further at "
            f"step_size = {walk.task.recipe.step_size:g}: choose a smaller one"
        )
