"""FOMM: first order motion model for image animation (Siarohin et al., NeurIPS 2019)."""
