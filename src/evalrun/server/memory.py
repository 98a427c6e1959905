"""What was made before, kept for as long as its key stands for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class Memory(Generic[_T]):
    """What was made for a key, for so many keys; those asked for least lately go."""

    def __init__(self, most: int) -> None:
        self._kept: OrderedDict[Any, _T] = OrderedDict()
        self._turns: dict[Any, threading.Lock] = {}
        self._most, self._lock = most, threading.Lock()

    def keep(self, key: Any, make: Callable[[], _T]) -> _T:
        """What is kept, else what is made now."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:  # of many who ask at once, one makes it
            if key in self._kept:
                return self._kept[key]
            try:
                made = self._kept[key] = make()
            finally:
                self._turns.pop(key, None)
        with self._lock:
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made
