"""How rejected images are made: ``(image, generator) -> image``, RGB in and out, same size.

``make_corruption`` sets one up by name; each is also a plain function with keyword-only options.
Randomness comes only from the generator passed in. Needs Pillow and numpy, nothing else.
"""

from mdpo.corruptions.augmentations import moco_v2
from mdpo.corruptions.catalogue import CORRUPTIONS, Corruption, make_corruption
from mdpo.corruptions.crops import crop_keep, crop_remove
from mdpo.corruptions.pixels import black, blur, diffusion, mean_color, noise, patch_shuffle

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "black",
    "blur",
    "crop_keep",
    "crop_remove",
    "diffusion",
    "make_corruption",
    "mean_color",
    "moco_v2",
    "noise",
    "patch_shuffle",
]
