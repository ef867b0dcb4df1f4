"""The pages about people: sign-in is Django's own, the rest is here, a file each subject."""
