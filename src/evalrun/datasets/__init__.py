"""Datasets: where rows come from, which are selected, and what each is called."""

from evalrun.datasets.dataset import Dataset, open_dataset, open_examples
from evalrun.datasets.shape import Item

__all__ = ["Dataset", "Item", "open_dataset", "open_examples"]
