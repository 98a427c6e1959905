"""Fixtures of the integration tests."""

from tests.browser import browser, opened

__all__ = ["browser", "opened"]
