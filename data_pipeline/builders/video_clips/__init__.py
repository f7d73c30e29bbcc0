"""Frames of video clips, one record each."""
