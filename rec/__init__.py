"""Kindling: recommenders on large language models."""
