"""`sealwire bench`: measures what this machine, or a link, can do."""
