"""A server for a team: one place where sweeps arrive, are looked at, labelled and decided on.

Its door is `evalrun.server.main.serve`; `client.py` pushes and pulls sweeps and needs none of the extra.
"""
