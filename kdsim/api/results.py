"""`Result`: what was measured and predicted of one experiment, or of many."""

from __future__ import annotations

import difflib
import html
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kdsim import config
from kdsim.api import plotting
from kdsim.api.labels import LABEL, label_columns
from kdsim.api.paths import folder_of
from kdsim.config import require, shown
from kdsim.results.labels import labelled
from kdsim.results.runs import notes
from kdsim.results.store import TEACHERS, Store, StudyResults, read_study

if TYPE_CHECKING:
    from kdsim.figures.style import Figure
    from kdsim.training.trained import TrainedNetwork

SHOWN_ROWS = 8
"""Experiments in the text of a result."""
SHOWN_COLUMNS = 5
HEADLINES = (
    "nu", "floor", "first_order_floor", "exact_floor", "bound_floor", "excess_risk_floor", "fluctuation",
    "test_accuracy", "test_loss", "accuracy", "loss", "bcp_l2", "mu", "step_size_limit",
)  # fmt: skip
"""Columns that the text of a result shows, in order of preference."""
TABLES = ("curves", "replicas", "spectrum")


class Result:
    """What was measured and predicted of experiments, in tables.

    A result has a length and can be iterated and indexed: `result[0]` is the result of the first experiment alone,
    `result[2:5]` and `result[result["floor"] < 1e-3]` are those of some, and `result["floor"]` is a column of `frame`.
    It can be pickled; its tables travel with it.

    Attributes:
        name: of the study, "experiments" for a list.
        settings: of the study, in JSON form.
        configurations: of the experiments, in JSON form and in their order.
        failures: one line for what could not be run; its experiments are missing in the tables.
        folder: where the study is stored.

    Example:
        >>> import kdsim as kd
        >>> problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
        >>> noises = [kd.supervision.Exact(), kd.supervision.OneHot()]
        >>> result = kd.run(
        ...     [kd.Experiment(problem, supervision=q, steps=50, replicas=4, engine="torch") for q in noises]
        ... )
        >>> len(result), list(result["label"])
        (2, ['exact', 'one-hot'])
        >>> result[1].frame["replicas"].item()
        4
    """

    def __init__(
        self,
        stored: StudyResults,
        configurations: Sequence[Mapping[str, Any]],
        figure: Any = None,
    ) -> None:
        """`figure` draws the study: a function, or the name of one of kdsim's; None: what is stored says it."""
        self.name, self.settings, self.folder = stored.name, stored.settings, Path(stored.folder)
        self.configurations = tuple(configurations)
        self.failures = tuple(stored.info.get("failures", ()))
        self._stored, self._figure = stored, figure

    # Tables

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row an experiment: first its label and the settings that vary, then the others, theory, measurements."""
        rows = self._stored.rows
        first = self._labels
        return pd.concat([first, rows.drop(columns=[name for name in first if name in rows])], axis=1)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row a checkpoint of an experiment, with the label and the settings that vary."""
        return self._joined("curves")

    @cached_property
    def replicas(self) -> pd.DataFrame:
        """One row a replica of an experiment, with the label and the settings that vary."""
        return self._joined("replicas")

    @cached_property
    def spectrum(self) -> pd.DataFrame:
        """One row a recorded direction of an experiment; empty unless `Recording.directions` asks for them."""
        return self._joined("spectrum")

    @cached_property
    def _labels(self) -> pd.DataFrame:
        return label_columns(self._stored.records, self.configurations)

    def _joined(self, name: str) -> pd.DataFrame:
        table = getattr(self._stored, name)
        digests = pd.Series([row["cell"] for row in self._stored.records], dtype=str)  # of no experiments as well
        first = self._labels.assign(cell=digests)
        first = first[[column for column in first if column == "cell" or column not in table]]
        return first.merge(table, on="cell", how="inner")

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What there is to know beside the tables, a line each: what failed, what another version of kdsim computed,
        which files of data have changed since."""
        return tuple(notes(self._stored))

    # A sequence of experiments

    def __len__(self) -> int:
        return len(self._stored.records)

    def __iter__(self) -> Iterator[Result]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """A column by its name; else the result of some experiments: by number, slice, numbers or a mask.

        Raises:
            KeyError: there is no such column.
            IndexError: there is no such experiment.
            TypeError: the key is none of these.
        """
        if isinstance(key, str):
            if key not in self.frame:
                nearest = difflib.get_close_matches(key, [str(name) for name in self.frame], n=1)
                raise KeyError(f"no column {key!r}{f' (nearest: {nearest[0]})' if nearest else ''} in .frame")
            return self.frame[key]
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            if not -len(self) <= key < len(self):
                raise IndexError(f"no experiment {key}: the result has {len(self)}")
            key = [key]
        if not isinstance(key, slice):
            if not isinstance(key, (Sequence, np.ndarray, pd.Series, pd.Index)):
                allowed = "the name of a column, a number, a slice, or a list or mask of experiments"
                raise TypeError(f"key = {shown(key)} is not allowed: must be {allowed}")
            key = np.asarray(key) if len(key) else slice(0)
        return self._part(np.arange(len(self))[key].tolist())

    def _part(self, numbers: Sequence[int]) -> Result:
        own = self._stored
        records = [self._stored.records[number] for number in numbers]
        labels = self._labels.iloc[list(numbers)].reset_index(drop=True)
        digests = [row["cell"] for row in records]

        def table(name: str) -> pd.DataFrame:
            whole = getattr(own, name)
            return whole[whole["cell"].isin(digests)].reset_index(drop=True)

        stored = StudyResults(own.name, own.settings, records, own.folder, own.info, table)
        found = Result(stored, [self.configurations[number] for number in numbers], self._figure)
        found.failures = ()
        found._labels = labels  # what told it apart among all still does
        return found

    # What can be done with it

    def plot(self) -> Figure:
        """Draw the study's figure, or learning curves where it has none.

        Returns:
            The matplotlib figure, on no screen: a notebook shows it, `savefig` writes it.

        Raises:
            ConfigError: there is no experiment, or the figure is a function of a study that was not given, see
                `kdsim.load`.
        """
        require(len(self) > 0, "experiments", len(self), "at least one")
        return plotting.drawn(self._view(), self._figure)

    def _view(self) -> StudyResults:
        """What figures are drawn from: the stored study, its rows with a column `legend`."""
        labels = self._labels[LABEL]
        records = [{"legend": label, **row} for label, row in zip(labels, self._stored.records, strict=True)]
        return StudyResults(
            self.name, self.settings, records, self.folder, self._stored.info, lambda name: getattr(self._stored, name)
        )

    def networks(self) -> tuple[TrainedNetwork, ...]:
        """The trained networks of the only experiment, one a replica.

        Raises:
            ConfigError: there are several experiments, or no networks.
        """
        require(len(self) == 1, "experiments", len(self), "one: index the result first")
        from kdsim.study.weights import read_weights  # which takes torch

        return read_weights(self._store, self._stored.records[0]["cell"])

    def save(self, out: str | Path) -> Result:
        """Copy all that is stored of the study into another results folder, its teachers and their trainings too.

        Args:
            out: the results folder; what it already holds stays.

        Returns:
            The result as it lies there.

        Raises:
            ConfigError: the folder in which it was stored is gone.
        """
        source, target = self._store, Store(folder_of("out", out))
        require(self.folder.is_dir(), "folder", str(self.folder), "there still: it is temporary, see kdsim.run")
        if target.root.resolve() == source.root.resolve():  # where it lies already
            return read_result(self.folder, self._figure)
        target.prepare()
        own = dict.fromkeys(self._stored.info["cells"])  # of all: a part is saved with its study
        digests = own | {part: None for digest in own for part in _parts(source.read_info(digest)["cell"])}
        for digest in digests:
            place = target.cell_folder(digest)
            if source.has_cell(digest) and not place.exists():
                shutil.copytree(source.cell_folder(digest), place)
            for file in (source.root / TEACHERS).glob(f"{digest}-*"):
                shutil.copy2(file, target.root / TEACHERS / file.name)
        place = target.study_folder(self.name, self.folder.name)
        shutil.copytree(self.folder, place, dirs_exist_ok=True)
        return read_result(place, self._figure)

    @property
    def _store(self) -> Store:
        return Store(self.folder.absolute().parent.parent)

    # How it looks

    def _summary(self) -> tuple[str, pd.DataFrame]:
        count = f"{len(self)} experiment{'s' * (len(self) != 1)}"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        names = [name for name in HEADLINES if name in self.frame and self.frame[name].notna().any()]
        shown = [LABEL, *names[:SHOWN_COLUMNS]] if len(self) else []
        return f"{self.name}: {count}{failed}, in {self.folder}", self.frame[shown].head(SHOWN_ROWS)

    def __repr__(self) -> str:
        line, table = self._summary()
        text = table.to_string(float_format="{:.4g}".format, na_rep="", max_colwidth=60) if len(self) else ""
        more = [f"... {len(self) - len(table)} more, see .frame"] if len(self) > len(table) else []
        return "\n".join([f"Result of {line}", *text.splitlines(), *more])

    def _repr_html_(self) -> str:
        line, table = self._summary()
        text = table.to_html(escape=True, float_format="{:.4g}".format, na_rep="", border=0)
        more = f"<p>{len(self) - len(table)} more, see <code>.frame</code></p>" if len(self) > len(table) else ""
        failures = "".join(f"<p>{html.escape(failure)}</p>" for failure in self.failures)
        return f"<p>{html.escape(line)}</p>{text}{more}{failures}"

    # How it travels

    def __reduce__(self) -> tuple[Any, ...]:
        tables = {name: getattr(self._stored, name) for name in TABLES}
        figure = self._figure if self._figure is None or isinstance(self._figure, str) else None
        state = {"_labels": self._labels, "failures": self.failures}
        content = (self.name, self.settings, self._stored.records, self.folder, self._stored.info)
        return _unpickled, (content, tables, self.configurations, figure, state)


def _unpickled(
    content: tuple[str, dict[str, Any], list[dict[str, Any]], Path, dict[str, Any]],
    tables: Mapping[str, pd.DataFrame],
    configurations: Sequence[Mapping[str, Any]],
    figure: str | None,
    state: Mapping[str, Any],
) -> Result:
    found = Result(StudyResults(*content, tables.__getitem__), configurations, figure)
    vars(found).update(state)
    return found


def _parts(form: Any) -> Iterator[str]:
    """Digests of the configurations within one, in JSON form: of a student its teacher, of that its training."""
    if isinstance(form, Mapping):
        yield config.digest_of_form(form)
    for part in form.values() if isinstance(form, Mapping) else form if isinstance(form, list) else ():
        yield from _parts(part)


def read_result(folder: Path, figure: Any = None) -> Result:
    """The result of a stored run of a study, from its folder.

    Args:
        figure: draws it; None: the one of kdsim's that it names.

    Raises:
        ConfigError: no study is stored there, or it is damaged.
    """
    stored = read_study(folder)
    store = Store(Path(folder).absolute().parent.parent)
    return Result(stored, [store.read_info(row["cell"])["cell"] for row in stored.records], figure)


def finished(store: Store, info: Mapping[str, Any], figure: Any = None) -> Result:
    """The result of experiments that are stored while their study is not, since it was interrupted.

    Args:
        info: what study.json would say; `cells` are the digests of the experiments that are finished.
    """
    infos = {digest: store.read_info(digest) for digest in info["cells"]}

    def table(name: str) -> pd.DataFrame:
        tables = {digest: store.read_table(digest, name) for digest in infos}
        parts = [found.assign(cell=digest) for digest, found in tables.items() if found is not None]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"cell": []})

    records = labelled([store.row(info["study"], digest, found) for digest, found in infos.items()])
    folder = store.study_folder(info["study"], info["digest"])
    stored = StudyResults(info["study"], info["settings"], records, folder, dict(info), table)
    return Result(stored, [found["cell"] for found in infos.values()], figure)
