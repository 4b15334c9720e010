"""Pickles, read by a machine that follows every instruction and imports, calls and makes nothing."""
