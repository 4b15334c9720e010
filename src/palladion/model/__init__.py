"""Models in memory: named tensors and, where the model can run, a graph; read, digested and run (docs/model.md)."""
