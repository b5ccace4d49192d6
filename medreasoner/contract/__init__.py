"""The wire format. Standard library only and Python 3.9 syntax: this folder also ships inside 3D Slicer."""
