"""What knows nothing of radiographs: devices, seeds, threads, progress bars, checks of arguments, versions."""

__all__ = []
