"""The gate: the process that serves models, and the one that writes the ledger while it runs."""
