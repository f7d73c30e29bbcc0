"""Torch-free readers of foreign tensor files that run nothing: torch, .npz, .safetensors."""
