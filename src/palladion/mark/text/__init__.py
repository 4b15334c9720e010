"""Marks in generated text, and what engines need that mark it themselves."""
