"""A page of stored studies: figure, command, settings and table of each, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdsim.config import ConfigError, digest, encode
from kdsim.plain_text import counted
from kdsim.results.store import Store, StudyResults, read_study
from kdsim.study import table_text
from kdsim.study.base import Study
from kdsim.study.settings import changed_settings, settings_texts
from kdsim.study.table_text import Table

INTRODUCTION = """# Gallery

Figures of stored studies, each with the command that makes it and with its table. Written by `kdsim gallery`: nothing
here is computed or edited by hand."""


@dataclass(frozen=True)
class Exhibit:
    """A stored run of a study, and how to make it again.

    Attributes:
        results: the stored run.
        summary: what the study shows, in one line; empty for a study file.
        changed: settings that differ from the study's defaults, one KEY=VALUE each.
    """

    results: StudyResults
    summary: str
    changed: tuple[str, ...]

    @property
    def command(self) -> str:
        """What runs it."""
        return " ".join([f"kdsim run-study {self.results.name}", *(f"--set '{text}'" for text in self.changed)])


def exhibits(store: Store, known: Mapping[str, type[Study]], names: Sequence[str] = ()) -> list[Exhibit]:
    """One run of each stored study of kdsim: the one with all settings at their defaults, else the most recent.

    Args:
        known: studies by name, in the order of the page.
        names: of the studies wanted; none: all that are stored.

    Raises:
        ConfigError: nothing is stored of a study that was asked for, or of any.
    """
    wanted = list(names) or [name for name in known if store.runs(name)]
    if not wanted:
        place = f"{str(store.root)!r}{others_than(known, store)}"
        raise ConfigError(f"no study of kdsim is stored in {place}: run one with --out {store.root}")
    found = []
    for name in wanted:
        default = known[name]()
        folder = store.study_folder(name, digest(default))
        results = read_study(folder if folder.is_dir() else store.latest(name))
        changed = changed_settings(results.settings, settings_texts(encode(default)))
        found.append(Exhibit(results, default.summary, changed))
    return found


def others_than(known: Mapping[str, type[Study]], store: Store) -> str:
    """Which stored studies a page leaves out, in brackets; empty if none."""
    names = [name for name in store.names() if name not in known]
    return f" (but {', '.join(map(repr, names))}, of study files)" if names else ""


def section(exhibit: Exhibit, figure: str | None, tables: Sequence[Table]) -> str:
    """An exhibit as Markdown.

    Args:
        figure: file of its figure, relative to the page; None without one.
        tables: of its rows.
    """
    results = exhibit.results
    versions: Any = results.info.get("versions")
    known = versions if isinstance(versions, Mapping) else {}  # a folder may say anything
    libraries = ", ".join(f"{name} {known.get(name, '?')}" for name in ("kdsim", "torch", "numpy", "python"))
    made = f"{results.info['date'][:10]}, {libraries}, {counted(len(results.rows), 'cell')}"
    parts = [
        f"## {results.name}",
        exhibit.summary,
        *([f"![{results.name}]({figure})"] if figure else []),
        f"```sh\n{exhibit.command}\n```",
        made,
        "<details><summary>Table</summary>",
        *map(table_text.markdown, tables),
        "</details>",
    ]
    return "\n\n".join(filter(None, parts))


def page(sections: Sequence[str]) -> str:
    """The whole page."""
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"
