"""Training: the Lightning module, optimisers, callbacks, fine-tuning."""
