"""Rotations, cameras, rays and meshes; conventions of the whole package in one place."""
