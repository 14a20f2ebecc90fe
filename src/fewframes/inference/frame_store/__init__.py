"""Stores of frame embeddings: one small file for a video, which takes its place in timelines."""
