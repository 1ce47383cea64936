"""Export: checkpoint in, one ONNX graph out that computes the same embeddings."""
