"""``./rex ask``: an HTTP client of Rex in the terminal. Runs on the installed environment."""
