"""Share model files through a model hub: the card, what is taken out of the header first, and the transfer."""
