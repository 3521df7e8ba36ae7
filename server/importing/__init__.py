"""What brings a shop's data in: the Complete Journey, and anyone's own files."""
