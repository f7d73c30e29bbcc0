"""GDPW, geometry driven progressive warping."""
