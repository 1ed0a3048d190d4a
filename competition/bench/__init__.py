"""Timing of data pipeline and network."""
