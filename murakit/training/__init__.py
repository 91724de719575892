"""Training of a network: the skorch net, its batches, optimizers, schedules, loss weights, checkpoints."""

__all__ = []
