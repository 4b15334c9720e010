"""Careless storage: plaintext models, keys and backups where they should not lie, and what of them is ours."""
