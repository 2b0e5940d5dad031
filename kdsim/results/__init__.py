"""Stored results: what is read of them needs neither torch nor an engine, and tables only when they are asked for."""
