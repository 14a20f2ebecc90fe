"""Systems side by side: cost, speed, memory, energy. Some of them take the extra `baselines`."""
