"""Measure systems side by side: cost, speed, memory and energy. Some systems need the extra `baselines`."""
