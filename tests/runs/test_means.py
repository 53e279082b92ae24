import torch

from unstall.runs.means import Mean


def test_mean_over_batches_of_different_sizes_is_that_over_all_samples() -> None:
    values = torch.arange(7.0)
    mean = Mean()
    for part in values.split(3):
        mean.update(part.sum(), len(part))
    assert mean.compute() == values.mean()
    mean.reset()
    mean.update(torch.tensor(4.0), 2)
    assert mean.compute() == 2
