"""A certificate authority: what it issues, its folder, its journal, its revocation lists."""
