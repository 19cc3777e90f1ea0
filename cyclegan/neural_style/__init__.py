"""Neural style transfer (Gatys et al. 2015, arXiv 1508.06576): the pixels of one picture are what is optimised.

    stylize(content, style)    # tensors (1, 3, H, W) in [-1, 1]

It is no Algorithm of the training loop: there is no data set, no generator to keep, nothing to resume or to export,
and L-BFGS evaluates its losses as often as it likes. What it shares with the algorithms it takes from where they do:
losses/style.py and networks/backbones.py.
"""

from cyclegan.neural_style.canvas import stylize
from cyclegan.neural_style.recipe import Recipe, RecipeError

__all__ = ["Recipe", "RecipeError", "stylize"]
