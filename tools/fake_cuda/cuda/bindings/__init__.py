"""Stands for cuda-bindings in a rehearsal: the real ones hold a CUDA runtime of their own, which wants a driver."""

__version__ = "13.0.0"
