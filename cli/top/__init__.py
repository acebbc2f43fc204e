"""`sealwire top`: the links of a running cluster, in a terminal."""
