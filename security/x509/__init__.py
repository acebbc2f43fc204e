"""Certificates and keys: parsing them, and the form of those we create."""
