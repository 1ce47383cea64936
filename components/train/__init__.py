"""Train as a component."""
