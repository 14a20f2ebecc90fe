"""Training of the detector of spans in long videos, on cached frame embeddings."""
