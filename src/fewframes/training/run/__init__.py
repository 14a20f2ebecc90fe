"""The three parts of a training run, prepare, fit and finish, and the folder that it writes."""
