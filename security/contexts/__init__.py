"""TLS contexts: sealed, following their files, asking an allow-list. No cryptography here."""
