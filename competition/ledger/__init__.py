"""The ledger of submissions and the scores that came back."""
