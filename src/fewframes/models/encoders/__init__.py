"""Frame encoders of timm and open_clip by name: a judged list, what follows from a name, and models that are an encoder alone."""
