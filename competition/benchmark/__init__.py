"""Train the rows of a table of results side by side, and compare them with one another and with published figures."""
