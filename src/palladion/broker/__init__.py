"""The key broker: releases file keys for a while, on approvals, policy and attestation (docs/broker.md)."""
