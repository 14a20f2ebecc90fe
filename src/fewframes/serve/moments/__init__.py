"""Search the moments of an index over HTTP."""
