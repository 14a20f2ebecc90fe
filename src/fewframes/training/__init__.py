"""Train a model on labelled videos, and evaluate it. Imports every wing below: `models`, `data`, `inference`, `viz` and `core`."""
