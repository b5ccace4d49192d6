"""Runs the module's self test inside a built Slicer: ctest calls this file."""

import unittest

from MedReasoner import MedReasonerTest

if __name__ == "__main__":
    suite = unittest.TestSuite([MedReasonerTest("runTest")])
    result = unittest.TextTestRunner().run(suite)
    raise SystemExit(not result.wasSuccessful())
