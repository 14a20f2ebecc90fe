"""Count repetitions of a movement from the self-similarity of frame embeddings, in a file or live. Knows no torch."""
