"""`sealwire config`: what is set, and where."""
