"""Consistency checks: findings about certificates, folders and configurations."""
