"""The talking-head systems, one vertical slice each, behind one protocol (`base`, `registry`)."""
