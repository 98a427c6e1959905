"""Finished sweeps into the tools that people already have: MLflow, and whatever takes OpenTelemetry.

A sink is one file here, or an entry point of the group `evalrun.sinks`. All of them send what the
finished folder holds, after the sweep: none is in its way.
"""
