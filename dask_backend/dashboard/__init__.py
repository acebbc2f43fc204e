"""The page `/sealwire` of a dashboard: every link of every process, and what is wrong."""
