"""Whether the tests notice when a term of the arithmetic is missing: see ``__main__``."""
