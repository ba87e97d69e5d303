"""The gates of one image."""
