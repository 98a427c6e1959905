"""`python -m evalrun` is the `evalrun` program."""

from evalrun.cli.main import main

main()
