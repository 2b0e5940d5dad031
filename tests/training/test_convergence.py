"""Convergence noise: what is left of a curve about its own straight line."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdsim.config import ConfigError
from kdsim.engines import Constant, Cosine, StepDecay
from kdsim.measure.convergence import convergence_noise, in_window, summarise
from kdsim.measure.floors import interval
from kdsim.training import TrainingRecord

STEPS = torch.tensor([5, 10, 17, 30, 31, 60, 61, 80])


def noise(count: int, replicas: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, replicas, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def record(curves: dict[str, torch.Tensor], steps: torch.Tensor = STEPS, **more) -> TrainingRecord:
    replicas = next(iter(curves.values())).shape[1]
    fields = {
        "test": {"accuracy": torch.full((replicas,), 0.5).double()},
        "best_test": {"accuracy": torch.full((replicas,), 0.6).double()},
        "best_step": torch.full((replicas,), 30),
        "diverged_at": torch.full((replicas,), -1),
        "seconds": torch.ones(replicas).double(),
        "pieces": torch.zeros(len(steps), dtype=torch.int64),
    }
    return TrainingRecord(steps, curves, **fields | more)


def test_a_straight_line_has_none():
    slopes = torch.tensor([0.0, 1.0, -3e-4, 1e6]).double()
    values = 2 + slopes * STEPS[:, None]
    found = convergence_noise(values, STEPS)
    assert (found <= 1e-13 * (1 + values.abs().amax(0))).all()


def test_against_a_fit_by_numpy():
    import numpy

    values = noise(8, 3)
    found = convergence_noise(values, STEPS)
    for r in range(3):
        line = numpy.polyfit(STEPS.numpy(), values[:, r].numpy(), 1)
        residual = values[:, r].numpy() - numpy.polyval(line, STEPS.numpy())
        assert found[r].item() == pytest.approx((residual @ residual / 6) ** 0.5, rel=1e-9)


def test_recovers_known_noise():
    """Its square is unbiased for the variance: 4000 replicas of C - 2 = 6 degrees of freedom, |z| < 4."""
    sigma, replicas = 0.03, 4000
    values = 0.7 + 1e-3 * STEPS[:, None].double() + sigma * noise(8, replicas)
    squares = convergence_noise(values, STEPS).square()
    z = (squares.mean() - sigma**2) / (sigma**2 * (2 / 6 / replicas) ** 0.5)
    assert abs(z) < 4


@given(st.floats(-1e3, 1e3), st.floats(-10, 10), st.floats(1e-3, 1e3))
def test_a_line_adds_nothing_and_scale_scales(offset, slope, scale):
    values = noise(8, 2, seed=3)
    expected = convergence_noise(values, STEPS)
    found = convergence_noise(scale * values + offset + slope * STEPS[:, None].double(), STEPS)
    torch.testing.assert_close(found, scale * expected, rtol=1e-9, atol=1e-12 * (abs(offset) + 80 * abs(slope)))


PIECES = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])


def test_a_line_for_each_piece():
    """What each of two pieces leaves, pooled; the third has one evaluation and says nothing."""
    values = noise(8, 3)
    first, second = (convergence_noise(values[part], STEPS[part]) if part.stop - part.start > 3 else None
                     for part in (slice(0, 4), slice(4, 7)))  # fmt: skip
    assert second is None
    time = STEPS[4:7].double() - STEPS[4:7].double().mean()
    centred = values[4:7] - values[4:7].mean(0)
    left = (centred - (time[:, None] * centred).sum(0) / time.square().sum() * time[:, None]).square().sum(0)
    expected = ((2 * first.square() + left) / 3).sqrt()
    torch.testing.assert_close(convergence_noise(values, STEPS, PIECES), expected)


def test_falls_between_pieces_are_no_noise():
    values = noise(8, 3)
    fallen = values - 100.0 * PIECES[:, None]
    torch.testing.assert_close(
        convergence_noise(fallen, STEPS, PIECES), convergence_noise(values, STEPS, PIECES), rtol=1e-9, atol=1e-9
    )


def test_pieces_of_a_schedule():
    decay = StepDecay((0.5, 0.75), 0.1)
    assert decay.pieces([0, 4, 5, 6, 7, 8, 9], 10) == [0, 0, 1, 1, 1, 2, 2]
    assert [decay.factor(step, 10) for step in (4, 5, 8)] == pytest.approx([1, 0.1, 0.01])
    assert Constant().pieces([0, 9], 10) == Cosine().pieces([0, 9], 10) == [0, 0]


def test_drift_of_the_floor():
    """Equal halves are stationary; a rise of many standard errors is not; fewer than six replicas cannot tell."""
    base = 0.1 + 0.01 * noise(8, 20, 4)
    still = summarise(record({"bcp_kl": base}), window=1.0)
    assert still["stationary"] is True
    assert still["floor_drift_low"] < 0 < still["floor_drift_high"]
    rising = base + 0.05 * (torch.arange(8) >= 4)[:, None]
    assert summarise(record({"bcp_kl": rising}), window=1.0)["stationary"] is False
    for replicas in range(1, 6):
        for curve in (base, rising):
            assert summarise(record({"bcp_kl": curve[:, :replicas]}), window=1.0)["stationary"] is None
    assert summarise(record({"bcp_kl": rising[:, :6]}), window=1.0)["stationary"] is False
    assert summarise(record({"bcp_kl": base[:, :6]}), window=1.0)["stationary"] is True
    assert summarise(record({"loss": base}), window=1.0)["stationary"] is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_than_four_evaluations_are_refused(count):
    message = f"evaluations = {count} in the window leave {max(count - 2, 0)} degrees of freedom: at least 2 are needed"
    with pytest.raises(ConfigError, match=message):
        convergence_noise(noise(count, 2), STEPS[:count])
    assert convergence_noise(noise(4, 2), STEPS[:4]).shape == (2,)


def test_the_window_is_the_last_part_of_the_run():
    """Steps above (1 - window) of the last one; without four evaluations there is no noise."""
    curves = {"accuracy": noise(8, 5), "loss": noise(8, 5, 1), "bcp_kl": noise(8, 5, 2)}
    found = summarise(record(curves), window=0.7)  # steps above 24
    late = slice(3, None)
    for name, values in (
        ("noise_accuracy", convergence_noise(curves["accuracy"][late], STEPS[late])),
        ("noise_loss", convergence_noise(curves["loss"][late], STEPS[late])),
        ("fluctuation", convergence_noise(curves["loss"][late], STEPS[late])),
        ("floor", curves["bcp_kl"][late].mean(0)),
        ("loss", curves["loss"][-1]),
    ):
        expected = interval(values)
        assert (found[name], found[f"{name}_low"], found[f"{name}_high"]) == (
            expected.mean,
            expected.low,
            expected.high,
        )
    assert found["best_step"] == 30 and found["diverged"] == 0 and found["test_accuracy"] == 0.5
    short = summarise(record(curves), window=0.3)  # 60 < 61 and 80 are two
    assert {name for name, value in short.items() if value is None and "_" not in name} == {"fluctuation", "stationary"}
    assert short["noise_accuracy"] is None and short["noise_loss"] is None and short.keys() == found.keys()
    expected = curves["bcp_kl"][5:].mean().item()
    assert short["floor"] == pytest.approx(expected)


def test_one_replica_has_no_interval():
    found = summarise(record({"accuracy": noise(8, 1), "loss": noise(8, 1)}), window=1.0)
    for name in ("test_accuracy", "best_test_accuracy", "accuracy", "noise_loss"):
        assert isinstance(found[name], float) and found[f"{name}_low"] is None and found[f"{name}_high"] is None


def test_where_a_replica_diverged_there_is_no_number():
    """The survivors' mean says nothing of the expectation. The columns stay."""
    curves = {"accuracy": noise(8, 3), "loss": noise(8, 3), "bcp_kl": noise(8, 3)}
    whole = summarise(record(curves), window=0.7)
    curves["loss"][4:, 1] = float("nan")
    found = summarise(record(curves, diverged_at=torch.tensor([-1, 31, -1])), window=0.7)
    assert found.keys() == whole.keys() and found["diverged"] == 1
    assert {name for name, value in found.items() if value is not None} == {"diverged", "best_step"}


def test_the_window_begins_after_its_share_of_the_run():
    """Evaluations at 30, 40, .., 100 of 100 steps: the last half is that after step 50, as the tail is of a floor."""
    steps = torch.arange(30, 101, 10)
    curve = steps[:, None].double().expand(-1, 2)
    found = in_window(record({"bcp_kl": curve, "bcp_kl_head": curve}, steps), window=0.5)
    assert found["floor"].tolist() == found["floor_head"].tolist() == [80.0, 80.0]  # of 60 .. 100, 75 with 50
    assert found["floor_drift"].tolist() == pytest.approx([25.0, 25.0])
