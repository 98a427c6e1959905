"""The catalog's schema versions, for Alembic: one file a version, `versions/<number>_<what>.py`.

Written by hand, together with the change to `evalrun.tracking.tables`; a test holds the two together.
"""
