"""What SE does in a network, measured."""
