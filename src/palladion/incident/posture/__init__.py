"""What protects the models of this installation now, what shows it, and what is open: read, never claimed."""
