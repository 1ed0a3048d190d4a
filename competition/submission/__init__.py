"""Submission zips: writing, verifying, inspecting."""

from competition.submission.write import write_submission

__all__ = ["write_submission"]
