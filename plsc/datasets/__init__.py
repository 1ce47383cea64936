"""Real large-class problems that this package makes by itself, in the form of its input."""
