"""Triggers: secret inputs with labels that nobody chose, by which a model is recognised through an API."""
