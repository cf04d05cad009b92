"""Models that travel with their checkpoints, and how a saved one is opened."""
