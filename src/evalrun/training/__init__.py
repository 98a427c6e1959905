"""Training runs: read from what other programs wrote, or tracked while they run."""
