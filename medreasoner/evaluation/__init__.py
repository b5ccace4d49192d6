"""Evaluation on a labelled collection: which cases, which figures, which pages to look at."""
