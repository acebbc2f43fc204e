"""Does everything fit? Findings about certificates, folders and configurations."""
