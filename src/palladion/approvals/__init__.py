"""Several people before anything leaves: requests, decisions, who decides, and what is enough (docs/approvals.md).

Bytes, documents and times come in; nothing here reads a file, a clock, a registry or a ledger. What is on record and
what it lets happen is in `lifecycle.approvals`.
"""
