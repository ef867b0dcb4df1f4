"""Dates on English pages: the day first, and 24 hours, as everywhere in Rex."""

DATE_FORMAT = "j M Y"
DATETIME_FORMAT = "j M Y, H:i"
TIME_FORMAT = "H:i"
