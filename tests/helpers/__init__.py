"""Shared by tests: builders of files, records and zips, and reference values computed in another way."""
