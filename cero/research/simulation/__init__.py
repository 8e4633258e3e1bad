"""Policies that learn, without a network: allocators compared in seconds. A laboratory, not evidence."""
