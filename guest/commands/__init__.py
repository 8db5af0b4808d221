"""The commands of the command line, a module each, or two that belong together."""
