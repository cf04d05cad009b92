"""What the listener showed: faces in video, the sentiment of words, and how either becomes one number per turn."""
