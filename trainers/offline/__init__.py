"""Evaluation of every recommender on anyone's data, by fixed protocols."""
