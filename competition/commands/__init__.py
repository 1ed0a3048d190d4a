"""Implementation of the commands: from a request to files and results."""
