"""Intel TDX: quotes of trust domains, the platform's certificate, and Intel's judgement of its firmware."""
