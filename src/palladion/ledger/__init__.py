"""The tamper-evident log of everything that happens: RFC 6962 Merkle tree, C2SP tiles, signed checkpoints.

`Ledger` (in `writer`) appends, `LedgerReader` (in `reader`) reads and proves, `verify_ledger` (in `audit`) recomputes
all. docs/ledger.md describes the files.
"""
