"""A certificate authority: its certificates, folder, journal and revocation lists."""
