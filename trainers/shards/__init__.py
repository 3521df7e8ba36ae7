"""Counting over shards of visitors: each is read from the tables by a task of its own, and all add up to one bundle."""
