"""`compare` against scipy, and which experiments are partners."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import kdsim as kd
from kdsim.api import comparing


def test_replicas_of_one_seed_are_pairs(sweep: kd.Result) -> None:
    found = kd.compare(sweep[0], sweep[2])
    assert found.differs.values.tolist() == [["supervision", "exact", "one-hot"]] and found.unmatched == ()
    row = found.frame.set_index("quantity").loc["floor"]
    a, b = (sweep[number].replicas["floor"] for number in (0, 2))
    test = stats.ttest_rel(b, a)
    ends = test.confidence_interval(0.95)
    assert [row["low"], row["high"], row["p"]] == pytest.approx([ends.low, ends.high, test.pvalue])
    assert row["difference"] == pytest.approx(b.mean() - a.mean())
    assert row["method"] == "paired" and row["replicas"] == 6
    assert (found.frame["adjusted"] >= found.frame["p"]).all() and row["label"] == "batch size 1"


def test_other_seeds_are_compared_by_welch(experiments: list, sweep: kd.Result) -> None:
    other = kd.run(experiments[:2], seed=1, replicas=9)
    found = kd.compare(sweep[:2], other)
    assert found.frame["label"].nunique() == 2 and set(found.frame["method"]) == {"Welch"}
    assert found.differs["setting"].tolist() == ["replicas", "seed"]
    row = found.frame[(found.frame["quantity"] == "floor")].iloc[1]
    test = stats.ttest_ind(other[1].replicas["floor"], sweep[1].replicas["floor"], equal_var=False)
    assert row["p"] == pytest.approx(test.pvalue) and row["label"] == "batch size 4"


def test_partners_differ_in_what_the_results_differ_in(sweep: kd.Result) -> None:
    one, four = (sweep[sweep["batch_size"] == size] for size in (1, 4))
    found = kd.compare(one, four[:2])
    assert list(dict.fromkeys(found.frame["label"])) == ["exact", "one-hot"]
    assert found.differs["setting"].tolist() == ["sgd.batch_size"]
    assert found.unmatched == (("a", "dirichlet 3, batch size 1"),)
    assert "sgd.batch_size 1 -> 4" in repr(found) and "dirichlet 3" in found._repr_html_()


def test_a_result_does_not_differ_from_itself(sweep: kd.Result) -> None:
    found = kd.compare(sweep, sweep)
    assert not found.frame["significant"].any() and np.allclose(found.frame["difference"], 0)
    assert found.differs.empty and "no setting differs" in repr(found)


def test_experiments_without_partners_are_refused(sweep: kd.Result) -> None:
    with pytest.raises(kd.ConfigError, match="no experiment of one result has a partner"):
        kd.compare(sweep[:3], sweep[[3, 4]])


def test_differences_are_adjusted_by_holm(sweep: kd.Result) -> None:
    frame = kd.compare(sweep[0], sweep[2]).frame
    p = frame["p"].dropna().sort_values()
    holm = np.minimum(1, np.maximum.accumulate(p * np.arange(len(p), 0, -1)))
    assert len(p) > 2 and p.iloc[0] < p.iloc[-1] < 1
    assert frame["adjusted"].dropna().to_dict() == pytest.approx(holm.to_dict())


def test_pairs_are_replicas_of_one_number() -> None:
    """Whatever their order and however many each result has; without a pair, the smaller number of replicas counts."""
    a, b = pd.Series([1.0, 2.0, 4.0], index=[0, 1, 2]), pd.Series([9.0, 2.5, 1.25, 4.75], index=[3, 1, 0, 2])
    found = comparing._difference(a, b, paired=True)
    assert (found["difference"], found["replicas"]) == (pytest.approx(0.5), 3)
    assert found["p"] == pytest.approx(stats.ttest_rel([1.25, 2.5, 4.75], [1.0, 2.0, 4.0]).pvalue)
    assert comparing._difference(a, b, paired=False)["replicas"] == 3


def test_replicas_that_all_differ_alike_leave_nothing_to_test() -> None:
    one = pd.Series([1.0, 2.0, 3.0])
    found = comparing._difference(one, one + 0.5, paired=True)
    assert (found["p"], found["low"], found["high"]) == (1.0, 0.5, 0.5)
