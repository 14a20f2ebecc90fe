"""Running of whole video classifiers that are not ours."""
