"""The sample corpus: simulated people, and the true value of each of their turns."""
