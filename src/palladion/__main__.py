"""`python -m palladion`: the command line."""

from palladion.cli.main import run

if __name__ == "__main__":
    run()
