"""Errata: change what a trained model says about one thing, and measure what else changed."""
