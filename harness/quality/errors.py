"""The one way a metric says that it can't be measured on the sets it got."""


class Unmeasurable(ValueError):
    """A metric that these sets don't allow; its text is the reason given in the row."""
