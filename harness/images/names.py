"""What the names of data sets say, without reading any."""


def is_fashion(spec: str) -> bool:
    """Whether a data set is Fashion-MNIST, from wherever."""
    return spec.partition(":")[0] in ("fashion", "idx")


def metric_name(spec: str) -> str:
    """What distances on a data set are named by: ``fashion`` gives ``fd_fashion@N``."""
    return "fashion" if is_fashion(spec) else spec if spec == "mnist" else "images"
