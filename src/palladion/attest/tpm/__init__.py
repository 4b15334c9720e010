"""TPM 2.0: quotes of what a machine has started, by a key that its TPM holds."""
