"""The picture that tiles were cut from: where each tile lies, and putting tiles together."""
