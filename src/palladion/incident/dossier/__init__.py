"""The dossier: the evidence package of a case, for a lawyer and an independent expert (docs/dossier.md)."""
