"""The oracle: two source trees of kdsim run on one machine and compared, number by number. See `__main__`."""
