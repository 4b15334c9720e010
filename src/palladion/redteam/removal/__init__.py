"""Attacks on the owner's own mark: what a copy that was altered on purpose still proves, and what altering it costs."""
