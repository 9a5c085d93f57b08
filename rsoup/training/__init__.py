"""Training of experts and baselines: PPO on LoRA factors."""
