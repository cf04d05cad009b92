"""Does it work? Ways to reward turns side by side on sessions whose turns were rated too, trivial ones included."""
