"""The machine that opens sealed files: what it trusts and has seen, and how models get from there to an engine."""
