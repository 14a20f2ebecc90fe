"""What the first bytes of a codec's packets say of the pictures in them."""
