"""Hostile input: generators of bad settings, study files, data and results, and a harness that judges what happens.

A surface is a module with `prepare(folder)`, which writes valid files once, and `case(random, files, box)`, which makes
one hostile input out of them and says with which arguments the command line meets it. `tests/fuzz` runs a few inputs of
each surface, `python -m benchmarks.fuzz` a thousand.
"""
