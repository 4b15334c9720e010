"""The name of a key that swtpm made once; no TPM has it any more."""

from palladion.seal.recipients.tpm_uri import TpmUri

TEXT = (
    "tpm:ACMACwACBPIAAAAQABAAAwAQACCkQ5dwOdi8yYooLRWzqwGpyfiWO_TEdHUgxIMSXRm5UAAgjSRIaVpIb_6_z0v2arV7VDxB"
    "YgqL4LanBlZTRtKj_Aw.ACAYfwKqM2ELz9Zuf2Zo0w2x23rsD1EztDRu7NjvNGEp8wAQo9yAl1_cdvTSzPBPzZmZkLbpOU6UuR1Q"
    "B0OwwBlwCRZGq8IRkjPrCw7iI2Od0Qly6DyaMeS55Wiqul0S_VyUnW9i2zbaMji1rfpFr1kUz9f-8FpdQymL4NBm?parent-name"
    "=000bfa09ea1d3bd811909adc38e43035224ba76bca788daf63903dfd21a2c5ce2893"
)
KEY = TpmUri.parse(TEXT)
NAME = KEY.parent_name
PUBLIC = KEY.public.data if KEY.public else b""
