"""What passes through the doors between stages: one module per artifact, each with its format, writer and reader."""
