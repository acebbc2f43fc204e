"""Certificates and keys: what they say, and what those that we make look like."""
