"""Models that are made from words: image-text encoders of open_clip, phrases for labels, and the model that they become."""
