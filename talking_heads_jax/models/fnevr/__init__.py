"""FNeVR: face neural volume rendering for face animation (Zeng et al., NeurIPS 2022)."""
