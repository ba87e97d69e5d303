"""The gates of a network, to look at."""
