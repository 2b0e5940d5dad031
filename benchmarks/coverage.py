"""Do the 95 % intervals of floors cover the exact floor in 95 % of studies?

    python -m benchmarks.coverage

2,000 independent least-squares studies with known exact floors: 20 configurations (pool, supervision, step size
between 0.1 and 0.6 of the mean-square stability limit, batch size) x 100 seeds, each study 64 replicas, as by default.
The result goes to benchmarks/results/coverage.json; the goal is 93 to 97 %.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
from pathlib import Path

import numpy as np
import torch

import kdsim
from kdsim.engines import ENGINES, SGD, Lane, Recording
from kdsim.measure import measure
from kdsim.problems import SimplexLinear
from kdsim.students import LeastSquares
from kdsim.supervision import Annotators, Dirichlet, Independent, OneHot, TwoPoint
from kdsim.theory import SecondMoments, constants

CONFIGURATIONS, SEEDS, REPLICAS = 20, 100, 64
RELAXATIONS = 12  # tail starts once the slowest direction has decayed by exp(-2 * 12)
RESULT = Path(__file__).parent / "results" / "coverage.json"
FAMILIES = (OneHot(), Dirichlet(1.0), Annotators(2.5), TwoPoint(1.0), Independent(0.05))


def configuration(number: int) -> dict:
    """One configuration: how many of its 100 studies cover the exact floor."""
    generator = np.random.default_rng(number)
    problem = SimplexLinear(classes=int(generator.integers(2, 5)), dimension=int(generator.integers(2, 5)), samples=200)
    population = problem.population(number)
    student, supervision = LeastSquares(), FAMILIES[number % len(FAMILIES)]
    batch_size = int(generator.choice([1, 4]))
    moments = SecondMoments(population, 0.0, batch_size)
    fraction = float(generator.uniform(0.1, 0.6))
    step_size = fraction * moments.stability_limit
    exact = float(moments.fixed_point(supervision, step_size).trace())
    start = math.ceil(RELAXATIONS / (step_size * constants(student, population).mu))
    sgd = SGD(steps=2 * start, batch_size=batch_size, dtype="float64")
    lanes = [Lane(supervision, step_size, seed, REPLICAS) for seed in range(1_000 * number, 1_000 * number + SEEDS)]
    record, _ = ENGINES["torch"].run(
        student, population, lanes, sgd, Recording(checkpoints=2, tail_fraction=0.5),
        reference=population.optimum, anchor=student.anchor(population),
    )  # fmt: skip
    covered, means = 0, []
    for study in range(SEEDS):
        measured = measure(record.replicas(slice(study * REPLICAS, (study + 1) * REPLICAS)))
        covered += measured.floor_low <= exact <= measured.floor_high
        means.append(measured.floor)
    bias = np.mean(means) / exact - 1
    return {
        "supervision": supervision.name,
        "classes": problem.classes,
        "dimension": problem.dimension,
        "batch_size": batch_size,
        "fraction_of_stability_limit": round(fraction, 4),
        "steps": sgd.steps,
        "exact_floor": exact,
        "mean_floor_over_exact_minus_one": bias,
        "its_standard_error": np.std(means, ddof=1) / exact / SEEDS**0.5,
        "covered": covered,
        "studies": SEEDS,
    }


def main() -> None:
    rows = []
    for number in range(CONFIGURATIONS):
        rows.append(configuration(number))
        print(f"{number + 1:2}/{CONFIGURATIONS}", json.dumps(rows[-1]), flush=True)
    studies = sum(row["studies"] for row in rows)
    coverage = sum(row["covered"] for row in rows) / studies
    result = {
        "coverage": coverage,
        "standard_error": (coverage * (1 - coverage) / studies) ** 0.5,
        "studies": studies,
        "replicas": REPLICAS,
        "date": datetime.date.today().isoformat(),
        "versions": {"kdsim": kdsim.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "configurations": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"coverage {coverage:.4f} +- {result['standard_error']:.4f} over {studies} studies -> {RESULT}")


if __name__ == "__main__":
    main()
