"""Kubernetes: apply objects, follow jobs to their end, and say plainly why one failed."""
