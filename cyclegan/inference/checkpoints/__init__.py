"""Generators out of files and into them: ours, the reference's and CUT's, and starts for fine-tuning."""
