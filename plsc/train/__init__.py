"""Train: shards in, checkpoints out. The class axis of the head is cut over the ranks."""
