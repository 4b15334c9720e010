"""Threat intelligence: feeds as bounded priors, names of attacks, what is told to others, and rules over the ledger.

Nothing here decides: a hit is a value with an end and a bound, for the watch or a person to weigh.
"""
