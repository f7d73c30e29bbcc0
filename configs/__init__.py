"""Training and evaluation configs; importing one takes milliseconds."""
