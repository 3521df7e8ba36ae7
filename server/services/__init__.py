"""The services of the contract, one a file. They see ports, never adapters, and never gRPC."""
