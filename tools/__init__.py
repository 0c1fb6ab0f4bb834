"""What a person runs on the repository."""
