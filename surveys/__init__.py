"""What holds over many networks, measured; not part of the package."""
