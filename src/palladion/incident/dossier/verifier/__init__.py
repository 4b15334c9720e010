"""Checks a dossier offline; ships inside of it. Python 3.11, the package `cryptography`, nothing of Palladion.

Every dossier carries a copy, so imports are relative, and an expert can read all of what is done: `check` says in which
order.
"""
