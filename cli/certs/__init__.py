"""`sealwire certs`: one file a command."""
