"""What a run promises, kept while it is killed, starved and lied to; ``python -m surveys.reliability``."""
