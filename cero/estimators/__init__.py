"""What a rollout teaches: its advantage, the baseline of it, and which rollouts are kept. NumPy only."""
