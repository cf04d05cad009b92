"""The sample corpus: simulated people whose true value of every turn is known."""
