"""Undoes what leaves a network's function as it is: permuted neurons, channels and heads, rotations, split neurons.

Like everything that comes before a test, it looks at the suspect and the **unmarked** original alone, never at a marked
copy or a key: only then does the aligned suspect stay independent of the key, and the p-value valid.
"""
