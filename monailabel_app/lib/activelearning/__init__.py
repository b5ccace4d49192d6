"""Which case next: answers drawn in idle time, how far they disagree, and strategies that go by it."""
