"""The gRPC server: settings, ports and adapters, services, workers and the command line."""
