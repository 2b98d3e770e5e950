"""What trains the bundled models: data and configuration for the engine in `train`."""
