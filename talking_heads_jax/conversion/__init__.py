"""Foreign checkpoints in, ours out, and back again: name tables, tensor layouts, a full audit."""
