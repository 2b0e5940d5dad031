"""Results on disk: where everything lies, written whole or not at all, refused when it is not ours.

DIR/cells/<digest>/cell.json, curves.parquet, replicas.parquet, and spectrum.parquet where directions were recorded
DIR/cells/<digest>/weights-<replica>.safetensors where networks were trained
DIR/teachers/<digest>-<number>.safetensors                      a fitted teacher
DIR/partial/<source of kdsim>                          work under way, see `kdsim.results.unfinished`
DIR/damaged                                            what `run-study --repair` has set aside
DIR/superseded                                         results that `run-study` has replaced by newer ones
DIR/<study name>/<study digest>/study.json, table.csv, <study name>.png ...
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsim.config import ConfigError
from kdsim.files import Damaged, StorageError, sweep, temporary_beside, write_new
from kdsim.plain_text import counted
from kdsim.results.cells import CELLS, SUPERSEDED, Cells
from kdsim.results.json_files import STORE_VERSION, brief, json_ready, read_json, require_no_link, signed_text
from kdsim.results.labels import labelled
from kdsim.results.provenance import POPULATION, Fingerprint, same, source_of
from kdsim.results.rows import kind_of_row
from kdsim.results.schema import is_float
from kdsim.results.unfinished import PARTIAL, Unfinished
from kdsim.sources import kdsim_digest
from kdsim.untrusted import read_file

if TYPE_CHECKING:  # reading rows needs no tables
    import pandas as pd

TEACHERS, DAMAGED = "teachers", "damaged"
STUDY_FILE, TABLE_FILE = "study.json", "table.csv"
SOURCE_DIGITS = 16
"""Of the digest of kdsim's source, in the name of the folder of work under way."""
OWN_FOLDERS = (CELLS, PARTIAL, TEACHERS)
RESERVED_NAMES = (*OWN_FOLDERS, DAMAGED, SUPERSEDED, "claims")
"""Folders of a results folder that are no study; the last is the ledger's."""
_STUDY_KEYS = {"study": str, "digest": str, "settings": dict, "cells": list, "figure": (dict, type(None)), "date": str}
"""Keys that a study.json must have, and the types of their values."""


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table: where there is no number, NaN, also in columns that no row has a number in."""
    import pandas as pd

    table, kinds = pd.DataFrame(rows), {kind_of_row(row) for row in rows}
    return table.astype({name: float for name in table if is_float(name, kinds)})


class StudyResults:
    """A stored study: what a figure is drawn from. Tables of the cells are read when they are asked for.

    Attributes:
        name: the study's name.
        settings: its settings in JSON form (`kdsim.config.encode`).
        records: one row a cell, see `kdsim.results.rows`; None where there is no number.
        folder: where study.json lies.
        info: the content of study.json.
        cells: the content of cell.json of each cell, by its digest.
    """

    def __init__(
        self,
        name: str,
        settings: dict[str, Any],
        records: list[dict[str, Any]],
        folder: Path,
        info: dict[str, Any],
        table: Callable[[str], pd.DataFrame],
        cells: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`table` gives "curves", "replicas" or "spectrum" of all cells, with a column `cell`."""
        self.cells = cells or {}
        self.name, self.settings, self.records, self.folder, self.info = name, settings, records, folder, info
        self._table = table

    @cached_property
    def rows(self) -> pd.DataFrame:
        """`records` as a table, see `table_of`."""
        return table_of(self.records)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row a checkpoint of a cell, see `kdsim.study.tables`, with T1 in the column `bound` and the linearised
        dynamics in `linearised`; column `cell` is the cell's digest."""
        return self._table("curves")

    @cached_property
    def replicas(self) -> pd.DataFrame:
        """One row a replica of a cell; column `cell` likewise."""
        return self._table("replicas")

    @cached_property
    def spectrum(self) -> pd.DataFrame:
        """One row a recorded direction of a cell, see `kdsim.study.dynamics`; column `cell` likewise."""
        return self._table("spectrum")


class Store(Cells):
    """A results folder."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(Path(root).absolute())  # whatever a study file does with the working directory

    @cached_property
    def unfinished(self) -> Unfinished:
        """Work under way of this source of kdsim: a state never goes on under another."""
        return Unfinished(self.root / PARTIAL / kdsim_digest()[:SOURCE_DIGITS])

    def begun_elsewhere(self) -> list[Unfinished]:
        """Work under way of other sources of kdsim, and of versions that did not tell them apart."""
        folder = self.root / PARTIAL
        if not folder.is_dir():
            return []
        inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
        return [Unfinished(path) for path in (folder, *inner) if path != self.unfinished.folder]

    def study_folder(self, name: str, digest: str) -> Path:
        """Folder of one run of a study: one per set of settings."""
        return self.root / name / digest

    def prepare(self) -> None:
        """Make the folders, try to write in each, and remove what killed processes left there.

        Raises:
            StorageError: the folder cannot be written.
        """
        for folder in (*(self.root / name for name in OWN_FOLDERS), self.unfinished.folder):
            require_no_link(folder)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with temporary_beside(folder / "probe") as probe:
                    probe.write_bytes(b"room for a byte")
            except OSError as error:
                why = error.strerror or str(error)
                raise StorageError(f"results folder {str(folder)!r} cannot be written: {why}") from None
            sweep(folder)
        self.unfinished.sweep(self._is_current)
        for other in self.begun_elsewhere():
            sweep(other.folder)
            other.sweep(lambda digest, population: self.has_cell(digest))
            other.remove_if_empty()

    def _is_current(self, digest: str, population: Fingerprint | None) -> bool:
        """Whether the cell is finished, by this source of kdsim and on those points where they are known."""
        if not self.has_cell(digest):
            return False
        try:
            info = self.read_info(digest)
        except Damaged:
            return False
        known = population is None or same(info.get(POPULATION) or {}, population)
        return known and source_of(info) == kdsim_digest()

    def set_aside(self, damage: Damaged) -> str:
        """Move a damaged file or folder to DIR/damaged, under a name of its own. Returns a line that says so."""
        return f"{damage.path} is damaged: moved to {self.move_aside(damage.path, DAMAGED)}"

    def teacher_file(self, digest: str, number: int) -> Path:
        """File of a fitted teacher."""
        return self.root / TEACHERS / f"{digest}-{number:03d}.safetensors"

    # Studies

    def write_study(self, info: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Path:
        """Store what a run of a study consisted of, and its table. Returns the folder.

        Raises:
            StorageError: the folder cannot be written.
        """
        folder = self.study_folder(info["study"], info["digest"])
        import pandas as pd

        require_no_link(folder.parent)
        require_no_link(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            with temporary_beside(folder / TABLE_FILE) as file:
                pd.DataFrame(list(rows)).to_csv(file, index=False)
                file.replace(folder / TABLE_FILE)
            with temporary_beside(folder / STUDY_FILE) as file:
                write_new(file, signed_text(json_ready({"schema": STORE_VERSION, **info})), durable=True)
                file.replace(folder / STUDY_FILE)
        except OSError as error:
            raise StorageError(
                f"study folder {folder} cannot be written ({brief(error)}); stored: {counted(len(rows), 'cell')}; "
                "the same command goes on from there"
            ) from None
        return folder

    def runs(self, name: str | None = None) -> list[tuple[str, Path]]:
        """(date, folder) of the stored runs, of one study or of all, oldest first."""
        runs = []
        for file in self.root.glob(f"*/*/{STUDY_FILE}"):
            study = file.parent.parent.name
            if study in RESERVED_NAMES or (name is not None and study != name):
                continue
            try:
                date = json.loads(read_file(file))["date"]
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                date = ""  # damaged or of another schema: listed, and refused by name when it is read
            runs.append((str(date), file.parent))
        return sorted(runs)

    def latest(self, name: str) -> Path:
        """Folder of the most recent run of a study.

        Raises:
            ConfigError: there is none; the message lists what is stored.
        """
        runs = self.runs(name)
        if not runs:
            raise ConfigError(f"no results of {name!r} in {str(self.root)!r}; {self.listing()}")
        return runs[-1][1]

    def names(self) -> list[str]:
        """Names of the studies of which a run is stored."""
        return sorted({folder.parent.name for _, folder in self.runs()})

    def listing(self, name: str | None = None) -> str:
        """What is stored, of one study or of all, in one line."""
        folders = [str(folder.relative_to(self.root)) for _, folder in self.runs(name)]
        if name is not None and not folders:
            return self.listing()
        return f"stored there: {', '.join(folders)}" if folders else "nothing is stored there"


def read_study_info(folder: Path) -> dict[str, Any]:
    """The content of a stored study's study.json.

    Raises:
        ConfigError: no study is stored there, or it is damaged or of another schema version.
    """
    if not (folder / STUDY_FILE).is_file():
        raise ConfigError(
            f"{str(folder)!r} is not the folder of a stored study (no {STUDY_FILE}); {Store(folder).listing()}"
        )
    advice = f"study folder {folder} is damaged: delete it, and run-study writes it again from the stored cells"
    info = read_json(folder / STUDY_FILE, _STUDY_KEYS, advice, folder)
    if not all(isinstance(digest, str) and Path(digest).name == digest for digest in info["cells"]):
        raise Damaged(f"{advice} ({STUDY_FILE}: cells are not all names)", folder)
    return info


def read_study(folder: str | Path) -> StudyResults:
    """Read a stored study from its folder, DIR/<study name>/<digest>.

    Raises:
        ConfigError: no study is stored there, or it is damaged or of another schema version.
    """
    folder = Path(folder)
    info = read_study_info(folder)
    store = Store(folder.absolute().parent.parent)
    digests = list(dict.fromkeys(info["cells"]))
    cells = {digest: store.check_cell(digest) for digest in digests}
    records = {digest: store.row(info["study"], digest, content) for digest, content in cells.items()}

    def table(name: str) -> pd.DataFrame:
        tables = {digest: store.read_table(digest, name) for digest in digests}
        return _stack({digest: found for digest, found in tables.items() if found is not None})

    return StudyResults(
        name=info["study"],
        settings=info["settings"],
        records=labelled([records[digest] for digest in info["cells"]]),
        folder=folder,
        info=info,
        table=table,
        cells=cells,
    )


def _stack(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables one below the other, with a first column `cell`."""
    import pandas as pd

    if not tables:
        return pd.DataFrame({"cell": []})
    return pd.concat([table.assign(cell=digest) for digest, table in tables.items()], ignore_index=True)
