"""Work of operators: check, explain, measure, bring dead letters back."""
