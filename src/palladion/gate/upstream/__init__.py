"""Model servers behind the gate ("upstreams"), asked over HTTP/1.1 by a client of our own."""
