"""MedReasoner core: a clinical question about a medical image becomes reasoning, a box, two points and a mask."""

import os

__version__ = "0.1.0"

# Threads of PyTorch's OpenMP that wait by spinning take the cores from each other on a busy machine (an answer of 2 s
# took 30 s). It counts only if it is set before torch is imported; a value that is there already is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
