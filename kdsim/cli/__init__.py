"""The command line. `kdsim.cli.main` is the entry point; it imports next to nothing, see `kdsim.cli.entry`."""

from kdsim.cli.entry import main

__all__ = ["main"]
