"""The gRPC server: settings, ports and adapters, services, workers and the command line."""

import os

# Children are started by exec, which needs nothing of gRPC; its handlers hold up a fork while calls are in work.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
