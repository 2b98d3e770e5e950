"""The procedural image world that the bundled model is trained on, and its analytic judge."""
