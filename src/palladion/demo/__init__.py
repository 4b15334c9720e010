"""The demo: the whole product in one minute, through its own command line and over real HTTP."""
