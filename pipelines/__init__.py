"""The pipeline: what it is, how it is compiled, and how it runs on this machine or on a cluster."""
