"""Strict doubles of key services, as HTTP servers on loopback: they honour states and permissions."""
