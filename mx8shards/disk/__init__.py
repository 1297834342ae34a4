"""What changes, locks or maps a file? Only this room creates, renames or unlinks files."""
