"""AMD SEV-SNP: attestation reports of guests (AMD 56860), signed by the chip's key or the cloud's leased one."""
