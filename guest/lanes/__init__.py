"""Lanes: the ways to run a scheme. A lane knows no scheme and no device's inside; it installs what it is told."""
