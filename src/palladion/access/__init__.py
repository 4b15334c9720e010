"""Who is asking: API keys so far; tokens, certificates, authorisation and limits come later.

Knows no registry: what is on record is handed in.
"""
