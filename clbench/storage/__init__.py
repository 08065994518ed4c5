"""Store artifacts by the hash of their recipe, in a folder or at a URL."""
