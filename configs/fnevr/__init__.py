"""FNeVR and the ablations of its paper."""
