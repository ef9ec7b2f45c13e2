"""What an edit is, and what editors are built from."""
