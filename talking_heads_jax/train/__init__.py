"""Training of any talking head: state, one compiled step, the loop around it. Knows no model."""
