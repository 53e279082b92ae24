"""What a project's own DataModule is made of.

In: files from somewhere, tensors, a seed. Out: files that lie on disk whole and checked, batches in an order that is a
function of seed and epoch. The question: *what does training see, and when?*
"""

from unstall.data.images import read_images
from unstall.data.memory import Batch, EpochSampler, InMemoryDataset
from unstall.data.seeds import RandomState, global_seed, random_generator

__all__ = ["Batch", "EpochSampler", "InMemoryDataset", "RandomState", "global_seed", "random_generator", "read_images"]
