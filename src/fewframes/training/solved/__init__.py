"""Learning without torch: the read-out is solved in closed form from frame embeddings, and each group is left out to measure it."""
