"""The benchmark: `make bench`. What a server costs, against what the operating system costs."""
