"""TLS contexts: sealed, following their files, with an allow-list. No cryptography library."""
