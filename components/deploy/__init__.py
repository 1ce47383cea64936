"""Deploy as a component."""
