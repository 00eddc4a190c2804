"""How patches become the input of a network: size, crop and the colours that it expects."""

from __future__ import annotations

from dataclasses import dataclass

Channels = tuple[float, float, float]  # red, green and blue, for pixels in 0 … 1
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Recipe:
    """What is done to a patch before the network; by default its colours are ImageNet's."""

    mean: Channels = IMAGENET[0]
    std: Channels = IMAGENET[1]
    size: int | None = None  # side that the network takes; None: that of the patches
    margin: int = 0  # patches are resized to size + margin, and the middle is taken
    smoothing: str = "bilinear"  # or bicubic

    @property
    def text(self) -> str:
        """The same in words, as the feature files record it."""
        colours = f"mean {_numbers(self.mean)}, sd {_numbers(self.std)}"
        if self.size is None:
            return f"as cut; {colours}"
        middle = f", then its middle {self.size}" if self.margin else ""
        return f"{self.size + self.margin} pixels ({self.smoothing}){middle}; {colours}"


def _numbers(values: Channels) -> str:
    return " ".join(f"{value:.8g}" for value in values)
