"""Generators as files for other programs, and translating with those."""
