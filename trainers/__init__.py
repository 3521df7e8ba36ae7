"""Trainers: from an export of the table view to a bundle that the engine serves."""
