"""What every tokenizer offers: images to a grid of discrete codes and back."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


def check_latents(latents: Tensor) -> None:
    """FloatingPointError for an encoder's output that is no number: its nearest code would be the first."""
    if not latents.isfinite().all():
        raise FloatingPointError("the tokenizer's latents are not finite")


class Tokenizer(nn.Module, ABC):
    """Frozen while strategies are compared."""

    codes: int
    """Size of the code book; codes are 0 .. codes - 1."""
    grid: tuple[int, int]
    """Rows and columns of the code grid."""
    image_size: tuple[int, int]
    """Height and width of the images in pixels."""

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Of one image's codes: the grid, where a tokenizer has one map."""
        return self.grid

    def vectors(self) -> Tensor | None:
        """What stands for each code where it is decoded, [K, c]; None where no one vector does."""
        return None

    def decode_written(self, codes: Tensor, written: Tensor) -> Tensor:
        """Images [B, 3, H, W] of the codes [B, N] that are written [B, N], where there are several maps."""
        raise TypeError(f"{type(self).__name__} has one map, whose unwritten codes are shown grey")

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Float images in [-1, 1] [B, 3, H, W] to int64 codes [B, h, w].

        Raises FloatingPointError where the encoder overflows.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] to float images [B, 3, H, W], nominally in [-1, 1] and not clamped."""
