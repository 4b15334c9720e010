"""Threat feeds in a running gate: loaded and refreshed off the data path, looked into for each client, as hints."""
