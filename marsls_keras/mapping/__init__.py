"""Rasters of a whole region: stack them, cut them to a dataset, map landslides on them; see README.md here."""
