"""How are files created, renamed, removed, locked and mapped? Only this package creates or removes any."""
