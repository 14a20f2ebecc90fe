"""Rejection of videos that show none of a model's actions: how it is fitted, stored and asked. Numpy alone."""
