"""Image and video files: streaming, bounded, and safe on files from strangers."""
