"""Results on disk: where everything lies, written whole or not at all, refused when it is not ours.

DIR/cells/<digest>/cell.json, curves.parquet, replicas.parquet, and spectrum.parquet where directions were recorded
DIR/cells/<digest>/weights-<replica>.pt where networks were trained
DIR/teachers/<digest>-<number>.pt                      a fitted teacher
DIR/partial/<digest of the pack>[-<block>].pt          an interrupted run, deleted when its cells are stored
DIR/partial/<digest>-r<replica>.pt                     a replica of an interrupted training, likewise
DIR/partial/<digest of the pack>-<block>.done.pt       a finished block of a pack that has several, likewise
DIR/<study name>/<study digest>/study.json, table.csv, <study name>.png ...
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kdsim.config import SCHEMA_VERSION, ConfigError
from kdsim.engines.base import State
from kdsim.engines.recorder import Record
from kdsim.measure.floors import Measurement
from kdsim.study.computations import COMPUTATION, computation_row
from kdsim.study.rows import json_ready, stored_row
from kdsim.study.training_rows import TEACHER, TRAINING, labelled, training_row
from kdsim.theory.prediction import Prediction
from kdsim.training.trained import TrainedNetwork

CELLS, PARTIAL, TEACHERS = "cells", "partial", "teachers"
CELL_FILE, CURVES_FILE, REPLICAS_FILE = "cell.json", "curves.parquet", "replicas.parquet"
SPECTRUM_FILE, WEIGHTS_FILE = "spectrum.parquet", "weights-{:03d}.pt"
STUDY_FILE, TABLE_FILE = "study.json", "table.csv"
OWN_FOLDERS = (CELLS, PARTIAL, TEACHERS)
RESERVED_NAMES = (*OWN_FOLDERS, "claims")
"""Folders of a results folder that are no study; the last is the ledger's."""

_CELL_KEYS = {"cell": dict, "summary": dict, "prediction": dict, "measurement": dict}
_STUDY_KEYS = {"study": str, "digest": str, "settings": dict, "cells": list, "figure": (dict, type(None)), "date": str}
"""Keys that a file must have, and the types of their values."""
_SUMMARY_KEYS = (
    "problem", "student", "ridge", "ridge_kind", "supervision", "level", "step_size", "batch_size", "index",
    "targets", "training_set", "held_out", "optimiser", "schedule", "dtype", "steps", "tail_start", "replicas", "seed",
    "engine", "device",
)  # fmt: skip
_ROW_KEYS = {
    "summary": {*_SUMMARY_KEYS},
    "prediction": {item.name for item in fields(Prediction)},
    "measurement": {item.name for item in fields(Measurement)},
}
"""Keys without which there is no row."""


@dataclass(frozen=True)
class StoredCell:
    """A finished cell: the content of cell.json, and its tables; `spectrum` is None where none was recorded."""

    digest: str
    info: dict[str, Any]
    curves: pd.DataFrame
    replicas: pd.DataFrame
    spectrum: pd.DataFrame | None = None


@dataclass(frozen=True)
class StudyResults:
    """A stored study: what a figure is drawn from.

    Attributes:
        name: the study's name.
        settings: its settings in JSON form (`kdsim.config.encode`).
        records: one row a cell, see `kdsim.study.rows`; None where there is no number.
        rows: the same as a table.
        curves: one row a checkpoint of a cell, see `kdsim.study.tables`, with T1 in the column `bound` and the
            linearised dynamics in `linearised`; column `cell` is the cell's digest.
        replicas: one row a replica of a cell; column `cell` likewise.
        spectrum: one row a recorded direction of a cell, see `kdsim.study.dynamics`; column `cell` likewise.
        folder: where study.json lies.
        info: the content of study.json.
    """

    name: str
    settings: dict[str, Any]
    records: list[dict[str, Any]]
    rows: pd.DataFrame
    curves: pd.DataFrame
    replicas: pd.DataFrame
    spectrum: pd.DataFrame
    folder: Path
    info: dict[str, Any]


class Store:
    """A results folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def cell_folder(self, digest: str) -> Path:
        """Folder of a finished cell."""
        return self.root / CELLS / digest

    def study_folder(self, name: str, digest: str) -> Path:
        """Folder of one run of a study: one per set of settings."""
        return self.root / name / digest

    def partial_file(self, digest: str) -> Path:
        """File of an interrupted pack."""
        return self.root / PARTIAL / f"{digest}.pt"

    def prepare(self) -> None:
        """Make the folders and try to write in each.

        Raises:
            ConfigError: the folder cannot be written.
        """
        for name in OWN_FOLDERS:
            folder = self.root / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with temporary_beside(folder / "probe") as probe:
                    probe.touch()
            except OSError as error:
                raise ConfigError(f"results folder {str(self.root)!r} cannot be written: {error}") from None

    # Cells

    def has_cell(self, digest: str) -> bool:
        """Whether the cell is finished."""
        return self.cell_folder(digest).exists()

    def write_cell(
        self,
        digest: str,
        info: dict[str, Any],
        curves: pd.DataFrame,
        replicas: pd.DataFrame,
        spectrum: pd.DataFrame | None = None,
        networks: Sequence[TrainedNetwork] = (),
    ) -> None:
        """Store a finished cell, of a training with the networks of its replicas.

        Where another process has stored it meanwhile, its result stays.
        """
        final = self.cell_folder(digest)
        with temporary_beside(final) as folder:
            folder.mkdir(parents=True)
            curves.to_parquet(folder / CURVES_FILE, index=False)
            replicas.to_parquet(folder / REPLICAS_FILE, index=False)
            if spectrum is not None:
                spectrum.to_parquet(folder / SPECTRUM_FILE, index=False)
            for number, network in enumerate(networks):
                network.save(folder / WEIGHTS_FILE.format(number))
            text = json_text({"schema": SCHEMA_VERSION, "digest": digest, **info})
            (folder / CELL_FILE).write_text(text, encoding="utf-8")
            try:
                folder.rename(final)
            except OSError:
                if not final.exists():
                    raise

    def read_cell(self, digest: str) -> StoredCell:
        """Read a finished cell.

        Raises:
            ConfigError: it is absent, damaged or of another schema version.
        """
        folder = self.cell_folder(digest)
        if not folder.exists():
            raise ConfigError(f"cell folder {folder} is missing: run the study again")
        advice = self._advice(digest)
        info = _read_json(folder / CELL_FILE, _CELL_KEYS, advice)
        tables = []
        optional = [SPECTRUM_FILE] if (folder / SPECTRUM_FILE).exists() else []
        for name in (CURVES_FILE, REPLICAS_FILE, *optional):
            try:
                with open(folder / name, "rb") as file:  # of a folder, pandas would read what lies in it
                    tables.append(pd.read_parquet(file))
            except Exception as error:  # a damaged file makes the reader raise almost anything
                raise ConfigError(f"{advice} ({name}: {_brief(error)})") from None
        return StoredCell(digest, info, *tables)

    def read_weights(self, digest: str) -> tuple[TrainedNetwork, ...]:
        """The trained networks of a finished training, one a replica.

        Raises:
            ConfigError: there are none, or a file is damaged.
        """
        files = sorted(self.cell_folder(digest).glob(WEIGHTS_FILE.replace("{:03d}", "*")))
        if not files:
            raise ConfigError(f"cell folder {self.cell_folder(digest)} has no weights: delete it to train again")
        return tuple(TrainedNetwork.load(file) for file in files)

    def teacher_file(self, digest: str, number: int) -> Path:
        """File of a fitted teacher."""
        return self.root / TEACHERS / f"{digest}-{number:03d}.pt"

    def row(self, study: str, digest: str, info: dict[str, Any]) -> dict[str, Any]:
        """The row of a stored cell from the content of its cell.json, see `kdsim.study.rows` and `training_rows`.

        Raises:
            ConfigError: the content lacks something that a row has.
        """
        if info.get("kind") in (TRAINING, TEACHER, COMPUTATION):
            row = computation_row if info["kind"] == COMPUTATION else training_row
            try:
                return row(study, digest, info)
            except ConfigError as error:
                raise ConfigError(f"{self._advice(digest)} ({CELL_FILE}: {error})") from None
        for part, keys in _ROW_KEYS.items():
            if missing := sorted(keys - info[part].keys()):
                why = f"{CELL_FILE}: {part} has no {', '.join(missing)}; an older kdsim may have written it"
                raise ConfigError(f"{self._advice(digest)} ({why})")
        return stored_row(study, digest, info)

    def _advice(self, digest: str) -> str:
        folder = self.cell_folder(digest)
        return f"cell folder {folder} is damaged: delete it, and run-study runs the cell again"

    # Interrupted runs

    def write_partial(self, digest: str, state: State, engine_seconds: float) -> None:
        """Save the state of a running pack, and the time that it took so far."""
        content = {"schema": SCHEMA_VERSION, "state": dict(vars(state)), "engine_seconds": engine_seconds}
        with temporary_beside(self.partial_file(digest)) as file:
            torch.save(content, file)
            file.replace(self.partial_file(digest))

    def read_partial(self, digest: str) -> tuple[State | None, float]:
        """The state in which a pack was left and the seconds it had taken; (None, 0.0) if there is none."""
        file = self.partial_file(digest)
        if not file.exists():
            return None, 0.0
        try:
            content = torch.load(file, weights_only=True, map_location="cpu")
            return State(**content["state"]), content["engine_seconds"]
        except Exception as error:  # a damaged file makes the reader raise almost anything
            raise ConfigError(
                f"interrupted run {file} cannot be read ({_brief(error)}): delete it to start over"
            ) from None

    def write_block(self, key: str, record: Record, parameters: torch.Tensor | None, engine_seconds: float) -> None:
        """Keep a finished block of a pack that has several, until its cells are stored."""
        file = self._block_file(key)
        content = {
            "schema": SCHEMA_VERSION,
            "record": dict(vars(record)),
            "parameters": parameters,
            "engine_seconds": engine_seconds,
        }
        with temporary_beside(file) as temporary:
            torch.save(content, temporary)
            temporary.replace(file)

    def read_block(self, key: str) -> tuple[Record, torch.Tensor | None, float] | None:
        """What `write_block` kept, or None."""
        file = self._block_file(key)
        if not file.exists():
            return None
        try:
            content = torch.load(file, weights_only=True)
            return Record(**content["record"]), content["parameters"], content["engine_seconds"]
        except Exception as error:  # a damaged file makes the reader raise almost anything
            raise ConfigError(
                f"finished block {file} cannot be read ({_brief(error)}): delete it to run it again"
            ) from None

    def _block_file(self, key: str) -> Path:
        return self.root / PARTIAL / f"{key}.done.pt"

    def delete_partial(self, key: str) -> None:
        """Forget the state of an interrupted pack or block, and a block that was kept."""
        self.partial_file(key).unlink(missing_ok=True)
        self._block_file(key).unlink(missing_ok=True)

    # Studies

    def write_study(self, info: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Path:
        """Store what a run of a study consisted of, and its table. Returns the folder.

        Raises:
            ConfigError: the folder cannot be written.
        """
        folder = self.study_folder(info["study"], info["digest"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary_beside(folder / TABLE_FILE) as file:
                pd.DataFrame(list(rows)).to_csv(file, index=False)
                file.replace(folder / TABLE_FILE)
            with temporary_beside(folder / STUDY_FILE) as file:
                file.write_text(json_text({"schema": SCHEMA_VERSION, **info}), encoding="utf-8")
                file.replace(folder / STUDY_FILE)
        except OSError as error:
            raise ConfigError(
                f"study folder {folder} cannot be written ({_brief(error)}); its {len(rows)} cells are stored"
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
                date = json.loads(file.read_text(encoding="utf-8"))["date"]
            except (OSError, ValueError, KeyError, TypeError):
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


def read_study(folder: str | Path) -> StudyResults:
    """Read a stored study from its folder, DIR/<study name>/<digest>.

    Raises:
        ConfigError: no study is stored there, or it is damaged or of another schema version.
    """
    folder = Path(folder)
    if not (folder / STUDY_FILE).is_file():
        raise ConfigError(
            f"{str(folder)!r} is not the folder of a stored study (no {STUDY_FILE}); {Store(folder).listing()}"
        )
    advice = f"study folder {folder} is damaged: delete it, and run-study writes it again from the stored cells"
    info = _read_json(folder / STUDY_FILE, _STUDY_KEYS, advice)
    store = Store(folder.absolute().parent.parent)
    if not all(isinstance(digest, str) for digest in info["cells"]):
        raise ConfigError(f"{advice} ({STUDY_FILE}: cells are not all texts)")
    cells = {digest: store.read_cell(digest) for digest in dict.fromkeys(info["cells"])}
    records = labelled([store.row(info["study"], digest, cells[digest].info) for digest in info["cells"]])
    return StudyResults(
        name=info["study"],
        settings=info["settings"],
        records=records,
        rows=pd.DataFrame(records),
        curves=_stack({digest: cell.curves for digest, cell in cells.items()}),
        replicas=_stack({digest: cell.replicas for digest, cell in cells.items()}),
        spectrum=_stack({digest: cell.spectrum for digest, cell in cells.items() if cell.spectrum is not None}),
        folder=folder,
        info=info,
    )


def json_text(content: Any) -> str:
    """Strict JSON: what is not finite becomes null."""
    return json.dumps(json_ready(content), indent=1, allow_nan=False) + "\n"


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A free temporary name in the folder of `path`; whatever is left under it in the end is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _read_json(file: Path, keys: dict[str, Any], advice: str) -> dict[str, Any]:
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{advice} ({file.name}: {_brief(error)})") from None
    version = info.get("schema") if isinstance(info, dict) else None
    if version is None:
        raise ConfigError(f"{advice} ({file.name}: no schema version)")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{file} has schema version {version!r}, this kdsim reads and writes {SCHEMA_VERSION}: "
            "read it with the kdsim that wrote it, or use another results folder"
        )
    if missing := sorted(keys.keys() - info.keys()):
        raise ConfigError(f"{advice} ({file.name}: no {', '.join(missing)})")
    for key, kind in keys.items():
        if not isinstance(info[key], kind):
            raise ConfigError(f"{advice} ({file.name}: {key} = {info[key]!r:.60})")
    return info


def _stack(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables one below the other, with a first column `cell`."""
    if not tables:
        return pd.DataFrame({"cell": []})
    return pd.concat([table.assign(cell=digest) for digest, table in tables.items()], ignore_index=True)


def _brief(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
