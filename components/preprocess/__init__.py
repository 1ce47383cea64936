"""Preprocess as a component."""
