"""`sealwire demo`: runs a real cluster, and checks that every promise is kept."""
