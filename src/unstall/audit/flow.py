"""What flows from where into a loss: from the batch, from parameters, through which calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from torch import Tensor

from unstall.audit.record import Call, Recording


class Flow:
    """The origins of all tensors in a recording.

    Args:
        recording: The calls of one step.
        batch: The tensors that the step was given.
        weights: All parameters, those that get no gradient as well.
    """

    def __init__(self, recording: Recording, batch: Iterable[Tensor], weights: Iterable[Tensor]) -> None:
        self.recording = recording
        self.parameters = {id(weight) for weight in weights}
        self.given, self.learned = {id(part) for part in batch}, set(self.parameters)
        for call in recording.calls:
            # What has a gradient of unknown origin, as out of a scripted part, is learned.
            self.learned |= {id(tensor) for tensor in call.inputs if tensor.requires_grad and self._is_new(tensor)}
            for origin in self.given, self.learned:
                if any(id(tensor) in origin for tensor in call.inputs):
                    origin |= {id(output) for output in call.outputs}

    def is_data(self, tensor: Tensor) -> bool:
        """Whether a tensor comes from the batch alone."""
        return id(tensor) in self.given and id(tensor) not in self.learned

    def is_learned(self, tensor: Tensor) -> bool:
        """Whether a tensor comes from parameters, whether or not a gradient reaches them, and is none itself."""
        return id(tensor) in self.learned and id(tensor) not in self.parameters

    def is_layer(self, call: Call) -> bool:
        """Whether a call takes parameters."""
        return any(id(tensor) in self.parameters for tensor in call.inputs)

    def before(self, tensor: Tensor, call: Call | None = None) -> Iterator[Call]:
        """Yield the calls that led to a tensor (as it was given to a call), the nearest first."""
        waiting, seen = deque([(tensor, call)]), set[int]()
        while waiting:
            maker = self.recording.maker_of(*waiting.popleft())
            if maker is None or id(maker) in seen:
                continue
            seen.add(id(maker))
            yield maker
            waiting += [(each, maker) for each in maker.inputs if id(each) not in self.parameters]

    def path(self, tensor: Tensor, call: Call) -> tuple[tuple[Call, ...], Call | None]:
        """Return the calls from the last layer to a tensor, as it was given to a call, in order; and that layer's."""
        path: list[Call] = []
        maker = self.recording.maker_of(tensor, call)
        while maker is not None and not self.is_layer(maker):
            learned = [each for each in maker.inputs if self.is_learned(each)]
            if not learned:
                break
            path.append(maker)
            maker = self.recording.maker_of(self.main(maker), maker)
        layer = maker if maker is not None and self.is_layer(maker) else None
        return tuple(reversed(path)), layer

    def main(self, call: Call) -> Tensor:
        """Return which input a call mainly is a function of: the largest that is learned."""
        return max((each for each in call.inputs if self.is_learned(each)), key=Tensor.numel)

    def _is_new(self, tensor: Tensor) -> bool:
        return id(tensor) not in self.given and self.recording.maker_of(tensor) is None
