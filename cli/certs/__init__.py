"""`sealwire certs`: one module per command."""
