"""Which engine runs what, and that the record says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tiny_study import Tiny

from kdsim.config import ConfigError
from kdsim.engines import ENGINES, SGD, Lane, Recording, choose_engine
from kdsim.engines.choice import PREFERENCE
from kdsim.engines.fused.compilation import announced
from kdsim.engines.optimisers import GradientDescent
from kdsim.engines.schedules import Cosine
from kdsim.problems import GaussianMixture
from kdsim.students import MLP, FactoredLeastSquares, LeastSquares, SoftmaxRegression
from kdsim.study import runner
from kdsim.supervision import Annotators, Dirichlet, Exact, LabelSmoothing, OneHot, Temperature

POOL = GaussianMixture(classes=3, dimension=2, samples=40).population(0)
ONE = (OneHot(),)


def choose(name="auto", student=None, supervisions=ONE, device="cpu", **sgd):
    lanes = [Lane(s, 0.1, 0, 4) for s in supervisions]
    return choose_engine(name, student or SoftmaxRegression(), POOL, lanes, SGD(10, **sgd), Recording(), device)


@pytest.mark.parametrize(
    ("engine", "words", "settings"),
    [
        ("cpu_fused", "fastest on cpu", {}),
        (
            "cpu_fused",
            "fastest",
            {"student": LeastSquares(), "supervisions": (Exact(), Annotators(2.5), Dirichlet(3.0))},
        ),
        ("cpu_fused", "fastest", {"index": "permutation", "targets": "frozen", "training_set": 20, "dtype": "float64"}),
        ("torch", "'temperature': must be exact", {"supervisions": (OneHot(), Temperature(2.0))}),
        ("torch", "'label-smoothing'", {"supervisions": (LabelSmoothing(0.1),)}),
        ("autograd", "momentum=0.9", {"optimiser": GradientDescent(momentum=0.9)}),
        ("autograd", "Cosine", {"schedule": Cosine()}),
        ("autograd", "'mlp'", {"student": MLP((4,))}),
        ("autograd", "'factored-least-squares'", {"student": FactoredLeastSquares()}),
    ],
)
def test_auto_takes_the_fastest_that_can(engine, words, settings):
    found = choose(**settings)
    assert found.engine == engine and words in found.reason


def test_a_users_own_student_is_not_mistaken_for_ours():
    class Mine(SoftmaxRegression):
        def output_gradient(self, outputs, q):
            return 2 * super().output_gradient(outputs, q)

    assert choose(student=Mine()).engine == "torch"


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("cpu_fused", {"supervisions": (Temperature(2.0),)}, "engine = 'cpu_fused' is not allowed for the supervision"),
        ("cpu_fused", {"student": MLP((4,))}, "must be autograd"),
        ("torch", {"student": MLP((4,))}, "must be autograd"),
        ("torch", {"optimiser": GradientDescent(momentum=0.9)}, "must be autograd"),
        ("gpu_fused", {}, "gpu_fused"),
        ("cuda_fused", {}, "cuda_fused"),
        ("auto", {"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(name, settings, words):
    with pytest.raises(ConfigError, match=words):
        choose(name, **settings)


def test_where_nothing_can_be_compiled_torch_takes_over_and_one_line_says_so(monkeypatch):
    monkeypatch.setattr("numba.core.config.DISABLE_JIT", 1)
    said = []
    with announced(said.append):
        found = choose(), choose(), choose(supervisions=(Temperature(2.0),)), choose(student=MLP((4,)))
    assert [choice.engine for choice in found] == ["torch", "torch", "torch", "autograd"]
    assert "NUMBA_DISABLE_JIT is set" in found[0].reason and "'temperature': must be exact" in found[2].reason
    (line,) = said
    assert "NUMBA_DISABLE_JIT is set: the engine torch takes the place of cpu_fused" in line
    with pytest.raises(ConfigError, match=r"engine = 'cpu_fused' is not allowed: NUMBA_DISABLE_JIT is set"):
        choose("cpu_fused")


@pytest.mark.slow
def test_no_kernel_is_needed_to_import_the_engines():
    script = (
        "from kdsim.engines.fused import mlp_steps, walk; from kdsim.engines import ENGINES\n"
        "print(type(walk.walk).__name__, type(mlp_steps.walk).__name__, *ENGINES)"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.split() == ["function", "function", *ENGINES]


def test_preferences_name_engines_and_end_with_the_one_that_runs_all():
    for names in PREFERENCE.values():
        assert set(names) <= set(ENGINES) and names[-1] == "autograd"


@pytest.mark.slow
def test_cells_are_run_by_the_engine_that_can_and_say_so(tmp_path):
    result = runner.run(Tiny(engine="auto"), tmp_path)
    assert [row["engine"] for row in result.rows] == ["cpu_fused", "cpu_fused", "torch"]
    reasons = {}
    for file in tmp_path.glob("cells/*/cell.json"):
        info = json.loads(file.read_text())
        reasons.setdefault(info["engine"], set()).add(info["engine_reason"])
    assert reasons["cpu_fused"] == {"fastest on cpu"}
    (reason,) = reasons["torch"]
    assert "'halfway': must be exact" in reason
