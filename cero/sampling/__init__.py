"""Within a step: when is a prompt sampled again, and which rollouts are kept? NumPy only."""
