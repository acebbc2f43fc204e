"""Request and reply over comms; `sealwire.comm` has the public names."""
