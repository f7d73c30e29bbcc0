"""Stateless array functions: no parameters, no Flax, no files; every layer above builds on them."""
