"""The simulated department of benchmarks/active_learning.py: its archive, its reasoner, its queue and its curve."""
