"""What each SE block of a network is worth, and which could go."""
