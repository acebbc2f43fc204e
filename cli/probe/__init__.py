"""`sealwire probe`: what listens at an address, and what is wrong with it."""
