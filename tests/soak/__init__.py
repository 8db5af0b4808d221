"""Whether a server that runs for long keeps anything: `make soak`."""
