"""Preparation of data sets: discovery, crops, staging, manifest."""
