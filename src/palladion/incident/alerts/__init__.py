"""Alerts: what is on record and cannot wait, told to people and to their tools, until somebody takes the case."""
