"""How operators look after a running gate: who they are, what their role lets them do, and what is done for them."""
