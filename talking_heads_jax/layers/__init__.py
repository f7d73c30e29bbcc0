"""Flax modules with two or more users. Layout NHWC / NDHWC; statistics always in float32."""
