"""Stories of consumer groups, lived through by every client library."""
