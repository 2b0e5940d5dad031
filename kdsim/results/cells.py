"""Finished cells on disk: a folder each, with checksums of everything in it.

cells/<digest>/cell.json, curves.parquet, replicas.parquet, and spectrum.parquet where directions were recorded
cells/<digest>/weights-<replica>.safetensors where networks were trained
"""

from __future__ import annotations

import errno
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kdsim.config import ConfigError
from kdsim.files import (
    Damaged,
    StorageError,
    not_read,
    sha256,
    storing,
    temporary_beside,
    write_bytes,
    write_new,
)
from kdsim.results.json_files import (
    STORE_VERSION,
    UNSIGNED,
    brief,
    json_ready,
    read_json,
    require_keys,
    require_no_link,
    signed_text,
)
from kdsim.results.provenance import POPULATION, same, sources_of
from kdsim.results.rows import COLUMNS_MARK, columns_mark, stored_row
from kdsim.results.tables import CURVES_FILE, REPLICAS_FILE, SPECTRUM_FILE, parquets
from kdsim.untrusted import read_file, require_small_table

if TYPE_CHECKING:  # reading cell.json needs no tables
    import pandas as pd

SUPERSEDED = "superseded"
"""Folder of results that newer ones have replaced."""
CELLS, CELL_FILE, WEIGHTS_FILE = "cells", "cell.json", "weights-{:03d}.safetensors"
OLD_WEIGHTS_FILE = "weights-{:03d}.pt"
"""Of kdsim 1; it is read."""
TABLE_BYTES, TABLE_GROWTH = 1 << 28, 64
"""A table may unpack to so many bytes, and so many times the length of its file: measurements do not compress well."""
DURABLE_SECONDS = 1.0
"""A cell that took longer is brought to the disk when it is stored. One of less is run again after a power cut: its
checksum then shows it, and waiting for the disk would take longer than the cell."""

_TABLES = {CURVES_FILE, REPLICAS_FILE, SPECTRUM_FILE}
_CELL_KEYS = {"cell": dict, "summary": dict, "prediction": dict, "measurement": dict}
_SIGNED_KEYS = {"files": dict, "weights": int}
"""Keys that cell.json must have, and the types of their values; the second since there are checksums."""


class Saved(Protocol):
    """What writes itself to a file, as a trained network."""

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""


@dataclass(frozen=True)
class StoredCell:
    """A finished cell: the content of cell.json, and its tables; `spectrum` is None where none was recorded."""

    digest: str
    info: dict[str, Any]
    curves: pd.DataFrame
    replicas: pd.DataFrame
    spectrum: pd.DataFrame | None = None


class Cells:
    """The finished cells of a results folder.

    Args:
        root: the results folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._superseded: set[str] = set()

    def cell_folder(self, digest: str) -> Path:
        """Folder of a finished cell."""
        return self.root / CELLS / digest

    def has_cell(self, digest: str) -> bool:
        """Whether the cell is finished."""
        return digest not in self._superseded and self.cell_folder(digest).exists()

    def supersede(self, digests: Iterable[str]) -> None:
        """These count as not finished until they are stored again. What is there stays until then."""
        self._superseded.update(digests)

    def renewed(self, digest: str) -> None:
        """It was stored, here or by a worker."""
        self._superseded.discard(digest)

    def write_cell(
        self,
        digest: str,
        info: dict[str, Any],
        curves: pd.DataFrame,
        replicas: pd.DataFrame,
        spectrum: pd.DataFrame | None = None,
        networks: Sequence[Saved] = (),
    ) -> None:
        """Store a finished cell, of a training with the networks of its replicas.

        Where another process has stored it meanwhile, its result stays. A result of another source of kdsim, or of
        other data, goes to DIR/superseded.
        """
        self.write_tables(digest, info, parquets(curves, replicas, spectrum), networks)

    def write_tables(
        self, digest: str, info: dict[str, Any], tables: Mapping[str, bytes], networks: Sequence[Saved] = ()
    ) -> None:
        """`write_cell` with the tables as files, by their names; see `parquets`."""
        final = self.cell_folder(digest)
        durable = info.get("wall_seconds", 0.0) > DURABLE_SECONDS
        with storing(final), temporary_beside(final) as folder:
            folder.mkdir()
            sums = {}
            for name, data in tables.items():
                write_new(folder / name, data, durable=durable)
                sums[name] = sha256(data)
            for number, network in enumerate(networks):
                network.save(folder / WEIGHTS_FILE.format(number))
            files = {"files": sums, "weights": len(networks)}
            marks = {"schema": STORE_VERSION, "digest": digest, COLUMNS_MARK: columns_mark(info)}
            content = json_ready({**marks, **info, **files})
            write_new(folder / CELL_FILE, signed_text(content), durable=durable)
            while not self._placed(folder, final) and not self._is_same(digest, content):
                self.move_aside(final, SUPERSEDED)
        self.renewed(digest)

    def _placed(self, folder: Path, final: Path) -> bool:
        """Rename a folder unless its new name is taken; whether it was renamed."""
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                raise
            return False
        return True

    def _is_same(self, digest: str, content: Mapping[str, Any]) -> bool:
        """Whether what is stored of a cell comes from the same source and data as a new result."""
        try:
            there = self.read_info(digest)
        except Damaged:
            return False
        pairs = [(info.get(POPULATION) or {}) for info in (there, content)]
        return sources_of(there) == sources_of(content) and (pairs[0] == pairs[1] or same(*pairs))

    def move_aside(self, path: Path, name: str) -> Path:
        """Move a file or folder to DIR/name, under a name of its own. Returns where it is then."""
        folder = self.root / name
        require_no_link(folder)
        with storing(folder):
            folder.mkdir(exist_ok=True)
            for number in itertools.count():
                target = folder / f"{path.name}.{number}"
                if target.exists():
                    continue
                try:
                    if self._placed(path, target):
                        break
                except FileNotFoundError:  # another process has moved it
                    break
        return target

    def read_info(self, digest: str) -> dict[str, Any]:
        """The content of a finished cell's cell.json.

        Raises:
            Damaged: it is absent, altered or of another schema version.
        """
        folder = self.cell_folder(digest)
        if not folder.exists():
            raise Damaged(f"cell folder {folder} is missing: run the study again", folder)
        info = read_json(folder / CELL_FILE, _CELL_KEYS, self._advice(digest), folder)
        if info["schema"] == STORE_VERSION:
            require_keys(info, _SIGNED_KEYS, f"{self._advice(digest)} ({CELL_FILE}", folder)
            sums = info["files"].items()
            if wrong := sorted(name for name, found in sums if name not in _TABLES or not isinstance(found, str)):
                raise self.damaged(digest, f"{CELL_FILE}: files has {', '.join(wrong):.60}")
        if info.get("digest") != digest:
            raise self.damaged(digest, f"{CELL_FILE} is of {info.get('digest')!s:.40}")
        return info

    def check_cell(self, digest: str) -> dict[str, Any]:
        """The content of cell.json, after a look at the checksums of the cell's files.

        A cell of the version without checksums is read as a whole, and gets them.

        Raises:
            Damaged: it is absent, altered or of another schema version.
        """
        info = self.read_info(digest)
        if info["schema"] == UNSIGNED:
            self.read_cell(digest)
            with suppress(StorageError):  # a folder that is only read stays as it is
                self._sign(digest, info)
            return info
        for name, expected in info["files"].items():
            self._intact(digest, name, expected)
        for number in range(info["weights"]):
            files = [self.cell_folder(digest) / name.format(number) for name in (WEIGHTS_FILE, OLD_WEIGHTS_FILE)]
            if not any(file.is_file() for file in files):
                raise self.damaged(digest, f"{files[0].name} is missing")
        return info

    def read_cell(self, digest: str) -> StoredCell:
        """Read a finished cell.

        Raises:
            Damaged: it is absent, altered or of another schema version.
        """
        info = self.read_info(digest)
        folder = self.cell_folder(digest)
        sums = info.get("files", {})
        if info["schema"] == UNSIGNED:
            optional = [SPECTRUM_FILE] if (folder / SPECTRUM_FILE).exists() else []
            sums = dict.fromkeys([CURVES_FILE, REPLICAS_FILE, *optional])
        tables = {name: self._read_table(digest, name, expected) for name, expected in sums.items()}
        missing = {CURVES_FILE, REPLICAS_FILE} - tables.keys()
        if missing:
            raise self.damaged(digest, f"{CELL_FILE}: files has no {', '.join(sorted(missing))}")
        return StoredCell(digest, info, tables[CURVES_FILE], tables[REPLICAS_FILE], tables.get(SPECTRUM_FILE))

    def read_table(self, digest: str, name: str) -> pd.DataFrame | None:
        """One table of a finished cell, "curves", "replicas" or "spectrum"; None if it has none of that name.

        Raises:
            Damaged: it is absent or altered.
        """
        info, file = self.read_info(digest), f"{name}.parquet"
        if info["schema"] == UNSIGNED:
            there = (self.cell_folder(digest) / file).exists()
            return self._read_table(digest, file, None) if there or file != SPECTRUM_FILE else None
        return self._read_table(digest, file, info["files"][file]) if file in info["files"] else None

    def _read_table(self, digest: str, name: str, expected: str | None) -> pd.DataFrame:
        import pandas as pd
        from pyarrow.parquet import ParquetFile

        data = self._intact(digest, name, expected)
        try:
            with ParquetFile(io.BytesIO(data)) as file:
                most = TABLE_BYTES + TABLE_GROWTH * len(data)
                require_small_table(file.metadata, most // (8 * max(file.metadata.num_columns, 1)), most)
            return pd.read_parquet(io.BytesIO(data))
        except Exception as error:  # a damaged file makes the reader raise almost anything
            raise self.damaged(digest, f"{name}: {brief(error)}") from None

    def _intact(self, digest: str, name: str, expected: str | None) -> bytes:
        """The bytes of a table, whose SHA-256 is as expected; None expects nothing."""
        try:
            data = read_file(self.cell_folder(digest) / name)
        except OSError as error:
            raise not_read(
                error, str(self.damaged(digest, f"{name}: {brief(error)}")), self.cell_folder(digest)
            ) from None
        if expected is not None and (found := sha256(data)) != expected:
            raise self.damaged(digest, f"{name}: its SHA-256 is {found[:12]}..., it should be {expected[:12]}...")
        return data

    def _sign(self, digest: str, info: dict[str, Any]) -> None:
        """Bring a cell without checksums up to this version."""
        folder = self.cell_folder(digest)
        require_no_link(folder)
        sums = {name: sha256(read_file(folder / name)) for name in sorted(_TABLES) if (folder / name).exists()}
        weights = len(self.weights_files(digest))
        try:
            text = signed_text({**info, "schema": STORE_VERSION, "files": sums, "weights": weights})
        except (ValueError, RecursionError) as error:  # a number that strict JSON has not
            raise self.damaged(digest, f"{CELL_FILE}: {brief(error)}") from None
        write_bytes(folder / CELL_FILE, text)

    def weights_files(self, digest: str) -> list[Path]:
        """Files of the trained networks of a finished training, one a replica; `kdsim.study.weights` reads them."""
        folder = self.cell_folder(digest)
        names = (name.replace("{:03d}", "*") for name in (WEIGHTS_FILE, OLD_WEIGHTS_FILE))
        return sorted((file for name in names for file in folder.glob(name)), key=lambda file: file.stem)

    def row(self, study: str, digest: str, info: dict[str, Any]) -> dict[str, Any]:
        """The row of a stored cell from the content of its cell.json, see `kdsim.results.rows.stored_row`.

        Raises:
            Damaged: the content lacks something that a row has, or has a value of another type.
        """
        try:
            return stored_row(study, digest, info)
        except ConfigError as error:
            raise self.damaged(digest, f"{CELL_FILE}: {error}") from None

    def _advice(self, digest: str) -> str:
        advice = "delete it, and run-study runs the cell again; run-study --repair moves all damaged ones aside"
        return f"cell folder {self.cell_folder(digest)} is damaged: {advice}"

    def damaged(self, digest: str, why: str) -> Damaged:
        """What is wrong with a cell, and what to do."""
        return Damaged(f"{self._advice(digest)} ({why})", self.cell_folder(digest))
