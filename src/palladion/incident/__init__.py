"""Cases from open to closed: what was seen, what was done about it, by whom, until somebody says what it was."""
