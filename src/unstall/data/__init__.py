"""What a project's own DataModule is made of.

In: files from somewhere, tensors, a seed. Out: files that lie on disk whole and checked, batches in an order that is a
function of seed and epoch. The question: *what does training see, and when?*
"""

from unstall.data.download import Mirror, Wheel, fetch
from unstall.data.images import read_images
from unstall.data.memory import EpochSampler, InMemoryDataset, in_memory_loader
from unstall.data.samples import find_targets, samples_in
from unstall.data.seeds import RandomState, global_seed, random_generator

__all__ = [
    "EpochSampler",
    "InMemoryDataset",
    "Mirror",
    "RandomState",
    "Wheel",
    "fetch",
    "find_targets",
    "global_seed",
    "in_memory_loader",
    "random_generator",
    "read_images",
    "samples_in",
]
