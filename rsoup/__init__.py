"""Rewarded soups: train one LoRA adapter per reward, mix their weights for any trade-off."""

__version__ = "0.1.0"
