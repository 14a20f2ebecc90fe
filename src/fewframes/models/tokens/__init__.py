"""Several tokens of each frame: their parts and places, and a recurrence over time."""
