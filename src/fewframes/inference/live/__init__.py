"""Models of a stream: the frames that they remember, and all that depends on their answers before."""
