"""Find videos that show the same footage: encoded anew, cut, mirrored, or changed a little."""
