"""The adapter: the only folder that knows verl."""
