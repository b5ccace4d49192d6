"""MedReasoner core: a clinical question about a medical image becomes reasoning, a box, two points and a mask."""

__version__ = "0.1.0"
