"""Evaluate: checkpoint in, report out; and the gate that judges the report."""
