"""How clients ask and are answered: pure codecs, bytes in and bytes out; `protocol` says what each one has to do."""
