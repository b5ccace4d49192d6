"""Segmentation experts: a box or points in, a mask out. `load_expert` is the one door."""

from medreasoner.expert.catalogue import DEFAULT_EXPERT, EXPERTS, describe_experts, load_expert
from medreasoner.expert.protocol import Segmentation, SegmentationExpert

__all__ = ["DEFAULT_EXPERT", "EXPERTS", "Segmentation", "SegmentationExpert", "describe_experts", "load_expert"]
