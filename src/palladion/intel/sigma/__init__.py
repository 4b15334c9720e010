"""Sigma rules over our ledger: read (`rule`), and run as questions to our own index (`run`). The pack is in `pack/`."""
