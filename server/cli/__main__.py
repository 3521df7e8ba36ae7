"""`python -m server.cli` is `shopkeeper`."""

from server.cli.main import main

if __name__ == "__main__":
    main()
