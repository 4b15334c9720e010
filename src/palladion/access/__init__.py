"""Who is asking, what they may do, and how much: keys, tokens, certificates, access policies, rates and budgets.

Knows no registry: what is on record is handed in.
"""
