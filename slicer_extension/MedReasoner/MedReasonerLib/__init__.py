"""The parts of the MedReasoner module. Python 3.9 syntax; standard library, NumPy, VTK, Slicer and Qt only."""

import sys
from importlib.util import find_spec
from pathlib import Path

# The built extension ships medreasoner.contract beside the module; a module that Slicer loads from a source checkout
# ("Additional module paths") finds it at the checkout's root.
if find_spec("medreasoner") is None:
    sys.path.append(str(Path(__file__).resolve().parents[3]))
