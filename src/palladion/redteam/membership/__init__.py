"""Membership and attribute inference by an auditor who holds the training data (docs/membership.md)."""
