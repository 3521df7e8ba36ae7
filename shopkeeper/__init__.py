"""What a client of a shop imports: `shopkeeper.client`, `shopkeeper.aio` and the messages of `shopkeeper.v1`."""
