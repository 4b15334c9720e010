"""Small networks that answer encrypted queries (docs/homomorphic.md): compiled, packed, evaluated and asked with CKKS.

Whoever asks keeps the only secret key, so the server never sees a query or an answer. That hides queries from the
server; it hides nothing of the model from whoever asks, and no watch can look at what is asked (`leakage`).
"""
