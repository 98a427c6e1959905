"""Results of other tools, read. `main` is the door."""
