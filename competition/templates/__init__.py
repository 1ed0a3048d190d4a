"""Templates of plug-ins, written by `marsls new`."""
