"""Read a video in stages of more and more frames: until the answer is sure, or while a budget lasts."""
