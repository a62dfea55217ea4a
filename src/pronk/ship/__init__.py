"""What was tuned, on its way to those who use it; pronk ships only what it has compared."""
