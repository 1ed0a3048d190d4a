"""Self-contained HTML report on one or several runs, with its charts and pictures."""

from marsls_keras.report.leaderboard import Answer
from marsls_keras.report.page import write_report
from marsls_keras.report.plots import save_curves
from marsls_keras.report.run_summary import FoldReport, RunReport

__all__ = ["Answer", "FoldReport", "RunReport", "save_curves", "write_report"]
