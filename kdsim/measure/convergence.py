"""What a training showed: scores at the end, and how steadily it got there."""

from __future__ import annotations

from torch import Tensor

from kdsim.config import ConfigError
from kdsim.measure.decomposition import columns
from kdsim.measure.floors import interval
from kdsim.training.record import TrainingRecord

FEWEST = 4
"""Evaluations that a window must hold: a line takes two of them."""


def convergence_noise(values: Tensor, steps: Tensor) -> Tensor:
    """Standard deviation of a curve about its own straight line, of each replica. (C, R), (C,) -> (R,).

    The line is fitted by least squares, which leaves C - 2 degrees of freedom: a curve that still rises or falls
    steadily has no noise by that.

    Raises:
        ConfigError: fewer than `FEWEST` evaluations.
    """
    if len(values) < FEWEST:
        raise ConfigError(f"evaluations = {len(values)} in the window are not allowed: must be at least {FEWEST}")
    time = steps.double() - steps.double().mean()
    centred = values.double() - values.double().mean(0)
    slope = (time[:, None] * centred).sum(0) / time.square().sum()
    residual = centred - slope * time[:, None]
    return (residual.square().sum(0) / (len(values) - 2)).sqrt()


def summarise(record: TrainingRecord, window: float) -> dict[str, float | int | None]:
    """Means over replicas with 95 % t-intervals, as columns NAME, NAME_low, NAME_high; no interval for one replica.

    test_NAME: scores on the test images at the last step, the headline; best_test_accuracy: at the evaluation that was
    best on the validation images, and best_step the mean of its step. NAME: on the validation images at the last step.
    floor: mean of KL(p, q) over the validation images and the evaluations in the window, where p is known.
    noise_accuracy, noise_loss: `convergence_noise` of accuracy and loss in the window; fluctuation is noise_loss. All
    are None where a replica diverged, and noise where the window has fewer than `FEWEST` evaluations.

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
    return found | {"best_step": record.best_step.double().mean().item(), "diverged": diverged}


def in_window(record: TrainingRecord, window: float) -> dict[str, Tensor]:
    """floor, noise_accuracy and noise_loss of each replica, (R,), as far as there are any; see `summarise`."""
    late = record.steps > round((1 - window) * int(record.steps[-1]))
    found = {}
    if "bcp_kl" in record.curves:
        found["floor"] = record.curves["bcp_kl"][late].mean(0)
    if int(late.sum()) >= FEWEST:
        for metric in ("accuracy", "loss"):
            if metric in record.curves:
                found[f"noise_{metric}"] = convergence_noise(record.curves[metric][late], record.steps[late])
    return found


def _interval(name: str, each: Tensor) -> dict[str, float | None]:
    if each.numel() > 1:
        return columns(name, interval(each))
    return {name: each.item(), f"{name}_low": None, f"{name}_high": None}
