"""Wires the rooms together: a suite file in, a tracked sweep and a report out."""
