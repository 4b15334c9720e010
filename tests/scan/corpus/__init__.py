"""Files to scan, made by code and opened by nothing that would run them: malicious, broken, odd and sound ones."""
