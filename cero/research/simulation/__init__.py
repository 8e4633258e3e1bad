"""Policies that learn without a network: allocators are compared in seconds. A guide, not evidence."""
