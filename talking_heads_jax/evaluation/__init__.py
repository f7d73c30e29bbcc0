"""Evaluation: protocols say what drives what, the runner streams it, the report judges it.

Clips come in as iterators and checkpoints as loaded models; nothing here reads data sets.
"""
