"""Sweeps on a Ray cluster: shards of the matrix are Ray tasks, answers are segments on shared storage.

Ray places, restarts and scales. What it lacks is here: answers that survive any machine (`segments.py`, on a
folder or object store: `place.py`), the same work on every node or none (`plan.py`), and limits and a budget
that hold over all nodes (`keeper.py`). `conduct.py` is the door: it asks the runs of a sweep in this way, and
gathers the answers into the ordinary sweep folder. Nothing of it is imported by other sweeps.
"""
