"""Answers to encrypted queries (docs/homomorphic.md): the same identification, limits and ledger as for all others."""
