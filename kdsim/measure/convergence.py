"""What a training showed: scores at the end, and how steadily it got there."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.measure.decomposition import columns
from kdsim.measure.floors import drift_test, interval
from kdsim.training.record import TrainingRecord

FREEDOM = 2
"""Fewest degrees of freedom of a convergence noise: a window of constant step size must hold four evaluations."""


def convergence_noise(values: Tensor, steps: Tensor, pieces: Tensor | None = None) -> Tensor:
    """Standard deviation of a curve about its own straight lines, of each replica. (C, R), (C,) -> (R,).

    Lines are fitted by least squares, one for each piece of the run: a curve that still rises or falls steadily has no
    noise by that, and neither has the fall at a decay of the step size. A line takes two degrees of freedom; pieces of
    fewer than three evaluations have none and are left out.

    Args:
        pieces: number of the piece of each evaluation, (C,); None: all are one.

    Raises:
        ConfigError: fewer than `FREEDOM` degrees of freedom.
    """
    freedom = degrees_of_freedom(len(values), pieces)
    if freedom < FREEDOM:
        raise ConfigError(
            f"evaluations = {len(values)} in the window leave {freedom} degrees of freedom: "
            f"at least {FREEDOM} are needed"
        )
    squares = torch.zeros(values.shape[1], dtype=torch.float64)
    for members in _pieces(len(values), pieces):
        if len(members) > 2:
            time = steps[members].double() - steps[members].double().mean()
            centred = values[members].double() - values[members].double().mean(0)
            slope = (time[:, None] * centred).sum(0) / time.square().sum()
            squares += (centred - slope * time[:, None]).square().sum(0)
    return (squares / freedom).sqrt()


def degrees_of_freedom(count: int, pieces: Tensor | None = None) -> int:
    """What lines through the pieces leave of so many evaluations."""
    return sum(max(len(members) - 2, 0) for members in _pieces(count, pieces))


def _pieces(count: int, pieces: Tensor | None) -> list[Tensor]:
    """Evaluations of each piece."""
    if pieces is None:
        return [torch.arange(count)]
    return [(pieces == which).nonzero()[:, 0] for which in pieces.unique()]


def summarise(record: TrainingRecord, window: float) -> dict[str, float | int | None]:
    """Means over replicas with 95 % t-intervals, as columns NAME, NAME_low, NAME_high; no interval for one replica.

    test_NAME: scores on the test images at the last step, the headline; best_test_accuracy: at the evaluation that was
    best on the validation images, and best_step the mean of its step. NAME: on the validation images at the last step.
    floor: mean of KL(p, q) over the validation images and the evaluations in the window, where p is known (floor_NAME
    likewise by groups of classes, where there are any);
    floor_drift its change from the first to the second half of the window, and `stationary` whether that is within
    what replicas explain (`drift_test`: None, not known, with few replicas). noise_accuracy, noise_loss:
    `convergence_noise` of accuracy and loss in the window, about a line for each stretch of constant step size;
    fluctuation is noise_loss. All are None where a replica diverged, and noise where there are too few evaluations.

    Args:
        window: last part of the run, in (0, 1].
    """
    diverged = int((record.diverged_at >= 0).sum())
    values = {f"test_{name}": score for name, score in record.test.items()}
    if "accuracy" in record.best_test:
        values["best_test_accuracy"] = record.best_test["accuracy"]
    values |= {name: curve[-1] for name, curve in record.curves.items()}
    late = in_window(record, window)
    values |= late | ({"fluctuation": late["noise_loss"]} if "noise_loss" in late else {})
    found: dict[str, float | int | None] = {}
    for name in ("noise_accuracy", "noise_loss", "fluctuation"):
        found |= columns(name, None)
    for name, each in values.items():
        found |= columns(name, None) if diverged else _interval(name, each)
    known = not diverged and "floor_drift" in values
    found["stationary"] = drift_test(values["floor_drift"], values["floor"].mean().item())[1] if known else None
    return found | {"best_step": record.best_step.double().mean().item(), "diverged": diverged}


def in_window(record: TrainingRecord, window: float) -> dict[str, Tensor]:
    """floor, floor_drift, noise_accuracy, noise_loss of each replica, (R,), as far as there are any.

    Also floor_NAME of each bcp_kl_NAME, by groups of classes, between and within them.
    """
    late = record.steps > round((1 - window) * int(record.steps[-1]))
    found = {}
    if "bcp_kl" in record.curves:
        tail = record.curves["bcp_kl"][late]
        found["floor"] = tail.mean(0)
        if len(tail) > 1:
            found["floor_drift"] = tail[len(tail) // 2 :].mean(0) - tail[: len(tail) // 2].mean(0)
    for name in (name for name in record.curves if name.startswith("bcp_kl_")):
        found[name.replace("bcp_kl", "floor")] = record.curves[name][late].mean(0)
    pieces = record.pieces[late]
    if degrees_of_freedom(len(pieces), pieces) >= FREEDOM:
        for metric in ("accuracy", "loss"):
            if metric in record.curves:
                found[f"noise_{metric}"] = convergence_noise(record.curves[metric][late], record.steps[late], pieces)
    return found


def _interval(name: str, each: Tensor) -> dict[str, float | None]:
    if each.numel() > 1:
        return columns(name, interval(each))
    return {name: each.item(), f"{name}_low": None, f"{name}_high": None}
