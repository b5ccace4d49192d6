"""What the Slicer application adds to slicer-core, as far as the extension uses it; no proof of how Slicer behaves."""
