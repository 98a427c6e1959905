"""Sweep folders, the catalog that indexes them, provenance, the audit trail."""
