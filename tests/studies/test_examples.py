"""The example of a study file outside the package: it runs, is stored with its source's digest, and is read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsim.cli import main
from kdsim.config import source_digest
from kdsim.results.store import Store
from kdsim.study.loading import study_of_file

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "xor_sweep.py"


def _kdsim(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_study_file_with_its_own_problem_and_supervision(tmp_path, capsys):
    assert _kdsim("run-study", EXAMPLE, "--quick", "--out", tmp_path, "--json") == 0
    ran = json.loads(capsys.readouterr().out)
    assert {row["supervision"] for row in ran["rows"]} == {"exact", "one-hot", "lapse", "dirichlet"}
    assert {row["problem"] for row in ran["rows"]} == {"xor"}
    digest = source_digest(study_of_file(EXAMPLE))
    own = [row["cell"] for row in ran["rows"] if row["supervision"] == "lapse"]
    for cell in own:
        stored = Store(tmp_path).read_cell(cell).info["cell"]
        assert stored["problem"]["source_sha256"] == digest
        assert stored["supervision"]["source_sha256"] == digest
    assert _kdsim("results", EXAMPLE, "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == ran["rows"]
    assert _kdsim("figure", EXAMPLE, "--out", tmp_path, "--format", "svg") == 0
    assert list(Path(ran["results"]).glob("*.svg"))


def test_its_noise_model_keeps_its_contract():
    """Mean and covariance by Monte Carlo, as in the contract suite of kdsim's own families."""
    import torch

    from kdsim.rng import Draws, Stream
    from kdsim.supervision import Batch

    lapse = __import__(study_of_file(EXAMPLE).__module__).Lapse(0.3)
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    zero, visit = torch.zeros(1, 1, dtype=torch.int64), torch.arange(200_000)[None]
    q = lapse.sample(
        Batch(index=visit, p=p.expand(1, 200_000, 3)), Draws(zero, zero, visit, Stream.LABEL, torch.float64, start=0)
    ).q[0]
    assert ((q.mean(0) - p).abs() < 5 * q.std(0) / 200_000**0.5).all()
    torch.testing.assert_close(q.T.cov(), lapse.covariance(p), atol=3e-3, rtol=0)
