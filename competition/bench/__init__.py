"""Benchmark the data pipeline and the network."""
