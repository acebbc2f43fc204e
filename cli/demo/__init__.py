"""`sealwire demo`: a real cluster, and what is promised of it."""
