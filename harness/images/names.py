"""What the names of data sets say, without reading any."""

from pardec.errors import UserError

SPECS = ("fashion", "idx:DIR", "imagefolder:PATH")
REPLACED = "mnist"
"""The data set of the controlled tier before this one; its rows stay readable."""


def is_fashion(spec: str) -> bool:
    """Whether a data set is Fashion-MNIST, from wherever."""
    return spec.partition(":")[0] in ("fashion", "idx")


FASHION_CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CLASSES = {"fashion": FASHION_CLASSES}
"""Names of classes by ``metric_name``."""


def metric_name(spec: str) -> str:
    """What distances on a data set are named by: ``fashion`` gives ``fd_fashion@N``."""
    return "fashion" if is_fashion(spec) else "images"


def refuse_replaced(spec: str) -> None:
    """UserError for the data set that Fashion-MNIST replaced."""
    if spec == REPLACED:
        raise UserError(
            "data 'mnist': the 8x8 tier of digits was replaced by data = \"fashion\" (Fashion-MNIST, 16x16 "
            "codes); its rows can still be read and compared"
        )
