"""What does verl's own stack need on a machine without an accelerator?"""
