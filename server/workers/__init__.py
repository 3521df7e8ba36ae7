"""What runs beside the requests: the replica follows the log, the sink fills the tables."""
