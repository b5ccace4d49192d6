"""Segmentation experts: a box or points in, a mask out. `load_expert` is the one door."""

import os

# Threads that wait for one another by spinning, as torch's do unless told before its import, make an expert 20 times
# slower on cores that another program is using; sleeping costs an idle machine nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from medreasoner.expert.catalogue import DEFAULT_EXPERT, EXPERTS, describe_experts, load_expert
from medreasoner.expert.protocol import Segmentation, SegmentationExpert

__all__ = ["DEFAULT_EXPERT", "EXPERTS", "Segmentation", "SegmentationExpert", "describe_experts", "load_expert"]
