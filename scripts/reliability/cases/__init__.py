"""What is a case, and what must hold in it? Shared by fuzz.py, soak.py and their tests."""
