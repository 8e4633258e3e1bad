"""What allocators and estimators are made of: prompts, beliefs, prices, budgets, state. NumPy only."""
