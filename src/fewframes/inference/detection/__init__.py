"""Detection in long videos: sliding windows, spans, and where shots and actions begin and end."""
