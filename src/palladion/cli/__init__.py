"""The command line: one file per command group; each command parses, calls, prints. No decision is taken here."""
