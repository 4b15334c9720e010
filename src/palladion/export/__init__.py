"""What the ledger says in the words of other systems: OCSF, CEF, syslog, JSON lines and Parquet (docs/siem.md).

`take` reads and proves, `formats` names the forms, `follow` moves entries from one to the other and keeps its place.
"""
