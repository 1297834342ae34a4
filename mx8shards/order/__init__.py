"""What comes when, for which rank? Orders, steps and what resuming needs, as pure functions: no files, no threads."""
