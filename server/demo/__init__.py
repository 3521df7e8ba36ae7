"""The demo: a grocer's year becomes a shop that answers, measured through its own front door."""
