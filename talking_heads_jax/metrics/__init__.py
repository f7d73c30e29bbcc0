"""Streaming metrics with empty/update/merge/compute; every one names its recipe.

A recipe is a metric with all its open choices fixed (window, range, mask, order of the means), for
example `ssim/gauss11-s1.5-rgb`; tables print recipes, never bare metric names. Images are float
(b h w c) in [0, 1], as the networks return them, before any rounding to bytes.
"""
