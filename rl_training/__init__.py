"""Training: data, supervised cold start, evaluation. Imports the core, never the server app."""
