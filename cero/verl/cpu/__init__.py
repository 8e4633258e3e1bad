"""What verl's own stack needs on a machine without an accelerator."""
