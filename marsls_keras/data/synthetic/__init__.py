"""Generated tiles in the layout of each release, for tests and the demo."""
