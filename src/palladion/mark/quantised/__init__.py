"""Weights that are stored in few bits: what they stand for, and marks in them, by the layouts that tools write."""
