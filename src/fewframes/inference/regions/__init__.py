"""Answers for parts of the picture: zones, and persons who are followed. Each frame is decoded once for all of them."""
