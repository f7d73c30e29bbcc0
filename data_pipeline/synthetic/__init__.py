"""Data that the project makes itself, with the motion behind every frame known."""
