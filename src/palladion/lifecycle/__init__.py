"""A model's life in one installation (protect, open, promote), and the installation's own (make, check, back up)."""
