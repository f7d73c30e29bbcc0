"""The first order motion model, FNeVR's baseline."""
