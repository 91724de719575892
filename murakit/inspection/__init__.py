"""Pictures of radiographs: studies, the most confident mistakes, and heat maps of a class.

They need ``murakit[plot]``; heat maps need ``murakit[explain]`` as well.
"""

from ._gallery import show_mistakes, show_studies, worst_mistakes
from ._heat_maps import HeatMaps, grad_cam, pointing_game

__all__ = ["HeatMaps", "grad_cam", "pointing_game", "show_mistakes", "show_studies", "worst_mistakes"]
