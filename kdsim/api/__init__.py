"""The functions of `import kdsim as kd`: run, simulate, predict, load, compare; each is imported when it is used."""
