"""Content-addressed artifacts in a folder or at a URL."""
