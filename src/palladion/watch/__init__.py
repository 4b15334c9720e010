"""Notices that a model is being learned: features → scores → suspicion → campaigns → standing; and calibrates that."""
