"""Errata: change what a trained language model says about one thing, and measure what else changed."""
