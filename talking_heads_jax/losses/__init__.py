"""Loss functions: arrays in, one value per example out; recipes and weights live elsewhere."""
