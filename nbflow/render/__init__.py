"""Drawings of what nbflow knows, as plain text, HTML and SVG: pure functions from the model's types to strings."""
