"""TFDS builder of the built-in talking heads."""
