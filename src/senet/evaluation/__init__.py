"""How well a network, or several together, classify images; in exact counts."""
