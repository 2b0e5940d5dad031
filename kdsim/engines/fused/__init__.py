"""Kernels of the engine cpu_fused: the whole trajectory of 16 replicas at a time in vector registers and L1."""
