"""Show pictures as a player shows them, and read image files: orientation, shape of pixels, depth, colours."""
