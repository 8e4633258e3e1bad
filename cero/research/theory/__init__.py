"""The offline optimum, and how far an allocator stays behind it."""
