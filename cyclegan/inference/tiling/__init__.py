"""Pictures larger than memory through a generator."""
