"""Numbered SQL of the table view."""
