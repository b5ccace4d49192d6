"""The question box in a browser, for those who have no 3D Slicer: `medreasoner viewer IMAGE`."""
