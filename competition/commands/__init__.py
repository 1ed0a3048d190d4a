"""What each command does, from its arguments to files and figures."""
