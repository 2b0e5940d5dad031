"""The columns of kdsim's results, by who fills them; see `kdsim.results.schema`."""

from kdsim.results.columns import computed, measured, ran, tables, theory, trained

COLUMNS = (*ran.COLUMNS, *theory.COLUMNS, *measured.COLUMNS, *trained.COLUMNS, *computed.COLUMNS, *tables.COLUMNS)
"""All, in the order of a row; then those of the tables of cells."""
