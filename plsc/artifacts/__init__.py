"""What passes through the doors between stages: a module, and a format, per artifact."""
