"""Rollout allocation for RL post-training: how many rollouts each prompt gets. NumPy only."""
