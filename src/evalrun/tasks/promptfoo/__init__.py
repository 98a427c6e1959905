"""promptfoo's configurations as suites. `main` is the door."""
