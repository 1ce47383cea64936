"""preprocess: base64 records (or image files) in, a globally shuffled ShardSet out."""
