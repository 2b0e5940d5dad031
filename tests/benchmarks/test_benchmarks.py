"""Benchmarks of speed: what is counted and summed up, and that contenders do the work that is timed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the benchmarks pin processes to cores")

from benchmarks import contenders, machine, scaling, sgd  # noqa: E402
from benchmarks.contenders import JAX, LOOP, OURS, PEAK, AutogradLoop, PacedRun, Work, Worker  # noqa: E402
from kdsim.engines import ENGINES, Lane, Recording, cpu_fused  # noqa: E402
from kdsim.engines.base import SGD  # noqa: E402

TINY = Work(replicas=16, samples=128, dimension=4, classes=3)


# Counting ---------------------------------------------------------------------------------------


def test_flops_are_those_of_two_products() -> None:
    classes, features, batch_size = 5, 31, 16
    counted = 0
    for _ in range(batch_size):
        for _ in range(classes):  # z_k = sum_j theta_kj x_j, then theta_kj += r_k x_j: a product and a sum each
            counted += 2 * features + 2 * features
    assert sgd.flops_per_step(batch_size, classes, features) == counted


@pytest.mark.parametrize(("classes", "passes"), [(4, 1), (5, 2), (7, 4), (8, 2)])
def test_vector_operations(classes: int, passes: int) -> None:
    found = sgd.vector_operations(classes, 10, 32)
    assert found["fma"] * machine.LANES * 2 == machine.LANES * sgd.flops_per_step(1, classes, 10)
    theta, x = 2 * classes * 10, (passes + classes) * 10  # read by outputs and update
    assert found["loads"] == theta + x + 32
    assert found["stores"] == classes * 10 + 32


def test_bound_of_the_share() -> None:
    assert sgd.fma_share_bound({"fma": 310, "loads": 310, "stores": 100}) == 1
    assert sgd.fma_share_bound({"fma": 310, "loads": 620, "stores": 100}) == 0.5
    assert sgd.fma_share_bound({"fma": 310, "loads": 0, "stores": 620}) == 0.25


def test_summary() -> None:
    rates = {"cpu_fused": [8.0, 12.0, 10.0], "jax": [2.0, 2.0, 2.0], "jax_outside": [4.0, 3.0, 5.0]}
    found = sgd.summary(rates, {name: [1.0, 0.5, 1.0] for name in rates}, flops=620, peak=62_000.0)
    assert found["fastest_jax"] == "jax_outside"
    ours = found["contenders"]["cpu_fused"]
    assert ours["replica_steps_per_second"] == {"median": 10.0, "low": 8.0, "high": 12.0}
    assert ours["over_jax"] == {"median": 2.0, "low": 2.0, "high": 4.0}  # of the rounds, not of the medians
    assert ours["share_of_fma_peak"] == pytest.approx(0.1)
    assert ours["cores_busy"] == 1.0
    alone = sgd.summary({"cpu_fused": [8.0]}, {"cpu_fused": [1.0]}, 620, 62_000.0)
    assert alone["fastest_jax"] is None and alone["contenders"]["cpu_fused"]["over_jax"] is None


def test_other_work_is_noticed() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(3.0, 1.0, (2, 400)).tolist()
    assert sgd.agree(first, second)
    assert not sgd.agree(first, [value * 1.2 for value in second])


def test_shares_of_a_made_up_machine() -> None:
    features = {"features_16": 200.0 + 16 * 2, "features_64": 200.0 + 64 * 2}
    ns = {"whole": 400.0, "pool_in_cache": 300.0, "targets_without_draws": 380.0, **features}
    peak = 16 * 4 * 5 / 1e-9  # one nanosecond for the multiply-adds of a feature
    found = sgd.shares(ns, Work(), peak)
    assert found["ns_without_features"] == pytest.approx(200) and found["ns_per_feature"] == pytest.approx(2)
    assert found["fma_share_per_feature"] == pytest.approx(0.5)
    assert found["fma_at_peak_ns"] == pytest.approx(31)
    assert (found["memory"], found["label_draws"]) == pytest.approx((0.25, 0.05))


def test_slope() -> None:
    assert scaling.slope([1, 10, 100], [5, 50, 500]) == pytest.approx(1)
    assert scaling.slope([1, 10, 100], [7, 7, 7]) == pytest.approx(0)


def test_axes_vary_one_setting() -> None:
    for axis in scaling.AXES:
        for value, work in scaling.FULL.works(axis):
            assert work == replace(scaling.BASE, **{axis: value})


# Contenders -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", OURS)
def test_a_paced_run_counts_what_it_walks(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_fused, "CHUNK_VISITS", 1 << 12)
    run = PacedRun(ENGINES[engine], TINY)
    assert run.step == PacedRun.START + 1  # the warm-up
    chunk = {"cpu_fused": 1 << 12, "torch": 1 << 17}[engine] // 16
    assert run.walk(0.0) == 16 * chunk
    assert run.step == PacedRun.START + 1 + chunk
    assert run.walk(0.02) % (16 * chunk) == 0
    run.close()
    assert not run._thread.is_alive()


def test_a_problem_in_a_paced_run_is_raised() -> None:
    class Broken:
        def run(self, *_: object, **__: object) -> None:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        PacedRun(Broken(), TINY)


def test_chunks_are_shortened_or_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_fused, "CHUNK_VISITS", 1 << 30)
    contenders.shorten_chunks()
    assert cpu_fused.CHUNK_VISITS == 1 << 20
    monkeypatch.delattr(cpu_fused, "CHUNK_VISITS")
    with pytest.raises(AttributeError, match="shorten_chunks"):
        contenders.shorten_chunks()


@pytest.mark.slow
def test_the_python_loop_does_the_same_work() -> None:
    work = replace(TINY, batch_size=2)
    people = contenders.pool(work)
    loop = AutogradLoop().distances(200, replace(work, replicas=24))
    lanes = [Lane(contenders.SUPERVISIONS["one-hot"], contenders.STEP_SIZE, 0, 512)]
    _, state = ENGINES["torch"].run(
        contenders.STUDENT, people, lanes, SGD(200, 2), Recording(checkpoints=2),
        reference=contenders.minimiser(contenders.STUDENT, people), anchor=contenders.STUDENT.anchor(people),
    )  # fmt: skip
    ours = state.error.double().square().sum((1, 2)).tolist()
    assert sgd.agree(ours, loop)
    assert not sgd.agree(ours, [1.05 * value for value in ours])  # 200 steps are enough to tell


@pytest.mark.slow
def test_a_jax_step_is_the_formula() -> None:
    pytest.importorskip("jax")
    from benchmarks.jax_sgd import chunk_steps, sgd_step

    work = replace(TINY, batch_size=3)
    people = contenders.pool(work)
    theta = 0.1 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index, uniform = [5, 77, 5], [0.1, 0.5, 0.97]
    x, p = people.x[index], people.p[index]
    labels = (p.cumsum(1) < torch.tensor(uniform)[:, None]).sum(1)
    q = torch.nn.functional.one_hot(labels, 3).double()
    expected = theta - contenders.STEP_SIZE * contenders.STUDENT.gradient(theta, x, q, torch.zeros(3, 5))
    for matrix_products in (True, False):
        step = sgd_step(work, matrix_products)
        found = np.asarray(step(theta.float().numpy(), np.array(index), np.array(uniform, np.float32)))
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert chunk_steps(Work(batch_size=1), 256) == 781 and chunk_steps(Work(batch_size=16), 16_384) == 8


def test_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders.importlib.util, "find_spec", lambda name: None)
    assert contenders.available() == (*OURS, LOOP)


def test_environment_bounds_threads() -> None:
    assert contenders.environment("torch", 2) == {"OMP_NUM_THREADS": "2", "JAX_PLATFORMS": "cpu"}
    assert "device_count=2" in contenders.environment("jax_outside", 2)["XLA_FLAGS"]
    for name in JAX:
        assert contenders.environment(name, 1)["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"


def test_the_peak_is_that_of_a_processor() -> None:
    assert 1e9 < machine.fma_flops(1, 0.02) < 1e12


def test_pinned_restores_the_cores() -> None:
    before = machine.cores()
    with machine.pinned(before[:1]):
        assert machine.cores() == before[:1]
    assert machine.cores() == before


# Whole scripts ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_that_ends_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with Worker(PEAK, 1) as worker, pytest.raises(RuntimeError, match="contender peak on 1 threads ended at 'walk'"):
        worker.ask("walk", seconds=0.1)
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.slow
def test_sgd_and_scaling_in_small_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgd, "available", lambda: ("cpu_fused",))
    monkeypatch.setattr(sgd, "limits", lambda plan, peak: made_up_limits())
    plan = sgd.Plan((1,), (16,), (1, 4_096), rounds=2, seconds=1e-3, samples=256, agreement=(8, 16, 4))
    result = sgd.benchmark(plan, "test")
    assert [(row["threads"], row["replicas"]) for row in result["settings"]] == [(1, 16)]  # no machine has the others
    found = result["settings"][0]["contenders"]["cpu_fused"]
    assert len(found["rounds"]) == 2 and found["replica_steps_per_second"]["median"] > 0
    assert 0 < found["share_of_fma_peak"] < 1
    assert set(result["versions"]) > {"python", "numpy", "numba", "torch", "jax"} and result["hardware"]["cores"] >= 1
    text = sgd.table(result["settings"])
    assert text.splitlines()[1].split()[:4] == ["threads", "batch", "replicas", "cpu_fused"]
    assert text.splitlines()[2].split()[-3] == "-"  # no ratio without jax


def made_up_limits() -> dict:
    names = ("whole", "pool_in_cache", "targets_without_draws", "both", "batch_of_16", "features_16", "features_64")
    ns = {name: float(100 + 10 * number) for number, name in enumerate(names)}
    spreads = {name: sgd.spread([value]) for name, value in ns.items()}
    return {"ns_per_visit_of_16_replicas": spreads, **sgd.shares(ns, Work(), 2e11)}


def test_figure_of_scaling() -> None:
    rows = [
        scaling.row(engine, axis, value, "ns", [value / 2, value, 2 * value])
        for engine in OURS
        for axis in scaling.LABELS
        for value in (10, 1_000)
    ]
    drawing = scaling.figure(rows)
    assert [panel.get_xlabel() for panel in drawing.axes] == list(scaling.LABELS.values())
    assert [panel.get_ylim()[0] for panel in drawing.axes] == pytest.approx([1] * 5 + [0])  # 5 lies in 1 .. 10
    assert [text.get_text() for text in drawing.axes[2].get_xticklabels()] == ["10", "1000"]
    assert "exponent 1.00" in scaling.line(rows[:2])


@pytest.mark.slow
def test_a_process_imports_no_jax_and_reports_its_own_memory() -> None:
    large = np.ones(800 << 20, np.uint8)  # a peak that a process started from here must not report as its own
    code = "import sys, benchmarks.sgd, benchmarks.scaling; from benchmarks.contenders import peak_memory;"
    code += "print('jax' in sys.modules, peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], cwd=contenders.ROOT, check=True, capture_output=True, text=True)
    has_jax, memory = done.stdout.split()
    assert has_jax == "False"
    assert 50 << 20 < int(memory) < large.nbytes
