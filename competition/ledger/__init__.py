"""The ledger of submissions, with expected and actual scores."""
