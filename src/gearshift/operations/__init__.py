"""What an operator does: check, explain, bring dead letters back."""
