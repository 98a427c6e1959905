"""evalrun: LLM evaluation and prompt experiments, with quality, fairness, speed and cost of the same samples."""

from evalrun._version import __version__

__all__ = ["__version__"]
