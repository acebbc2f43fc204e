"""`sealwire probe`: diagnoses what listens at an address."""
