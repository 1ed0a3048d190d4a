"""Throughput of data pipeline and network."""
