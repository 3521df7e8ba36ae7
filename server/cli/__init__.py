"""The command line, `shopkeeper`: results on standard output, progress and logs on standard error."""
