"""What a network costs, and its SE blocks of it."""
