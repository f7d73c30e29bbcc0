"""What `make demo` runs: compositions of the rest of the package, no logic of their own."""
