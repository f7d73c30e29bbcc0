"""Morphable face models behind one protocol: coefficients → vertices, landmarks, attributes."""
