"""`sealwire bench`: what this machine, or a link, does."""
