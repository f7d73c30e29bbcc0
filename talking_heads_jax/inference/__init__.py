"""Inference: motion transfer between faces, streaming animation, drawing, cost counting.

Nothing is imported here; import the file you need, e.g.
`from talking_heads_jax.inference.animate import FrameAnimator`.
"""
