"""SE in any CNN: where it goes, putting it there, taking it out again."""
