"""Files of models: our format, the files of 2021, names of models, and image weights."""
