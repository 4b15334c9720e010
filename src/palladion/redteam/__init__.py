"""Attacks run on purpose: simulated clients and thieves (docs/traffic.md)."""
