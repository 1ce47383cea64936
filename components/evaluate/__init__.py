"""Evaluate as a component."""
