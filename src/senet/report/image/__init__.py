"""The gates of one image, to look at."""
