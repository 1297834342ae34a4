"""In which order are samples read, by which rank, and how is that resumed? Pure functions: no files, no threads."""
