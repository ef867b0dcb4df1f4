"""What stands behind ``./rex``: set-up, the running stack, and the suites.

Only the standard library is imported here: this runs before anything is installed. ``ask`` is the
exception; it runs on the installed environment.
"""
