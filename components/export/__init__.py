"""Export as a component."""
