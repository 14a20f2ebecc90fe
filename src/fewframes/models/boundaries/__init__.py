"""A detector of actions in long videos: a small network over frame embeddings that says where actions begin and end."""
