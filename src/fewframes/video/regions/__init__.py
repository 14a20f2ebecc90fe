"""Parts of the picture that are judged by themselves: zones, which stay, and tracks, which follow a person or a thing."""
